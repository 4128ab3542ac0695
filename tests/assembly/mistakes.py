"""Good recipes, and a table of mistakes to plant in them: what is set, where it is found, what the report says."""

from dataclasses import dataclass

VQ = """
model:
  type: autoencoder
  encoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            out_channels: 8}
  bottleneck: {type: tokens, in_channels: 8, codebooks: {visual: {quantizer: {type: nearest, size: 16, channels: 4}}}}
  decoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            latent_channels: 4, z_channels: 8}
discriminator: {type: patch, channels: 8, layers: 2, norm: none}
objective:
  generator:
    pixel: {type: l1}
    perceptual: {type: lpips, extractor: {type: lpips, weights: random}}
    codebook: {type: codebook}
    commitment: {type: commitment, weight: 0.25}
    adversarial: {type: hinge, weight: 0.5, start: 10, adaptive: {reference: [pixel, perceptual]}}
  discriminator:
    adversarial: {type: hinge, weight: 0.5, start: 10}
data: {source: {type: photos, exclude: [chelsea]}, transform: {size: 32, crop: random, flip: true}, batch_size: 4}
optim:
  generator: {type: adam, lr: 1.0e-4, betas: [0.5, 0.9]}
  discriminator: {type: adam, lr: 1.0e-4, betas: [0.5, 0.9]}
validation:
  data: {source: {type: photos, include: [chelsea]}, batch_size: 1}
  every: 10
  metrics: [psnr, ssim]
  monitor: psnr
engine: {max_steps: 20, precision: fp32}
cycle: [generator, discriminator]
"""

KL = """
model:
  type: autoencoder
  encoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            out_channels: 8}
  bottleneck: {type: gaussian, in_channels: 8, latent_channels: 4}
  decoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            latent_channels: 4, z_channels: 8}
objective:
  generator:
    nll: {type: scaled_nll, distances: {pixel: {loss: {type: l1}}, squared: {loss: {type: mse}, weight: 2.0}}}
    kl: {type: kl, weight: 1.0e-6}
data:
  source: {type: image_folder, path: images, columns: {condition: edges, mask: masks}}
  transform: {size: 32, crop: adm_random}
optim: {generator: {lr: 1.0e-4}}
engine: {max_steps: 20}
"""

GAN = """
model: {type: stylegan2, image_size: 16, latent_size: 8, width: 8, mapping_layers: 2, channel_base: 64, max_channels: 8}
discriminator:
  type: stylegan2
  image_size: 16
  channel_base: 64
  max_channels: 8
  augment: {type: ada, target: 0.6}
objective:
  generator:
    adversarial: {type: non_saturating}
    path: {type: path_length, weight: 2.0, every: 4, shrink: 2}
  discriminator:
    adversarial: {type: non_saturating}
    r1: {type: r1, weight: 5.0, every: 16}
    drift: {type: disc_shift, weight: 0.001}
    watch: {type: gradient_penalty, role: log, every: 10}
data: {source: {type: photos}, transform: {size: 16, crop: random}, batch_size: 4}
optim:
  generator: {lr: 2.0e-3, betas: [0.0, 0.99], lazy_adam: 4}
  discriminator: {lr: 2.0e-3, betas: [0.0, 0.99], lazy_adam: 16}
engine: {max_steps: 20, ema: {half_life: 10000}, batches: fresh}
cycle: [discriminator, generator]
"""

WGAN = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 8, widths: [16], norm: none}
discriminator: {type: mlp, image_size: 8, in_channels: 1, widths: [16], augment: {type: diff_augment}}
objective:
  generator: {adversarial: {type: wgan}}
  discriminator: {adversarial: {type: wgan}, penalty: {type: gradient_penalty, weight: 10.0}}
data: {source: {type: digits}, transform: {size: 8, crop: center}, batch_size: 4}
optim: {generator: {type: rmsprop}, discriminator: {type: rmsprop}}
engine: {max_steps: 20, batches: fresh}
cycle: [discriminator*5, generator]
"""

COLUMNS = """
model:
  type: autoencoder
  encoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            out_channels: 8}
  bottleneck: {type: tokens, in_channels: 8, codebooks: {look: {quantizer: {type: nearest, size: 16, channels: 4}},
                                                         sense: {quantizer: {type: nearest, size: 16, channels: 4}}}}
  decoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            latent_channels: 8, z_channels: 8}
  heads: {meaning: {codebook: sense, width: 8, grid: 16, layers: 1, heads: 2}}
objective:
  teachers: {clip: {type: clip, weights: random}}
  generator:
    l1: {type: l1, inputs: {weight: batch.mask}}
    composed: {type: l1_composition, inputs: {alpha: batch.alpha, foreground: prediction,
                                              background: batch.background}}
    text: {type: clip, extractor: {type: clip, weights: random}, inputs: {text: batch.text}}
    features: {type: perceptual, layer_weights: [0.1, 1.0],
               extractor: {type: vgg19, weights: random, widths: [4, 4, 8, 8, 8], layers: [relu1_2, conv5_4]}}
    commitment: {type: commitment, weight: 0.25}
    apart: {type: disentangle, weight: 0.1, pairs: [[look, sense]]}
    structure: {type: ms_ssim, scale_weights: [0.4, 0.6], window: 5, role: log}
    meaning: {type: cosine, inputs: {student: heads.meaning, teacher: teacher.clip}}
data:
  source: {type: image_folder, path: images, table: texts.csv,
           columns: {mask: masks, alpha: alphas, background: backgrounds}}
  transform: {size: 32, crop: random}
  batch_size: 4
optim: {generator: {lr: 1.0e-4}}
engine: {max_steps: 20}
"""


@dataclass(frozen=True)
class Mistake:
    """What is set where, and what the report must say."""

    set: str
    place: str
    says: str
    recipe: str = VQ


# fmt: off
MISTAKES = [
    # a word that is not known, with its nearest good spelling
    Mistake("modle={}", "modle", "did you mean 'model'"),
    Mistake("engine.max_step=3", "engine.max_step", "did you mean 'max_steps'"),
    Mistake("engine.sead=3", "engine.sead", "did you mean 'seed'"),
    Mistake("data.batchsize=3", "data.batchsize", "did you mean 'batch_size'"),
    Mistake("data.source.exlude=[]", "data.source.exlude", "did you mean 'exclude'"),
    Mistake("data.transform.filp=true", "data.transform.filp", "did you mean 'flip'"),
    Mistake("optim.generator.learning_rate=1", "optim.generator.learning_rate", "unknown option"),
    Mistake("optim.genrator={}", "optim.genrator", "did you mean 'generator'"),
    Mistake("objective.generater={}", "objective.generater", "did you mean 'generator'"),
    Mistake("objective.generator.pixel.wieght=1.0", "objective.generator.pixel.wieght", "did you mean 'weight'"),
    Mistake("objective.generator.pixel.redution=mean", "objective.generator.pixel.redution",
            "did you mean 'reduction'"),
    Mistake("objective.generator.adversarial.strat=3", "objective.generator.adversarial.strat", "did you mean 'start'"),
    Mistake("objective.generator.adversarial.adaptive.refrence=[pixel]",
            "objective.generator.adversarial.adaptive.refrence", "did you mean 'reference'"),
    Mistake("model.encoder.chanels=8", "model.encoder.chanels", "did you mean 'channels'"),
    Mistake("model.bottleneck.codebooks.visual.quantizer.sise=8", "model.bottleneck.codebooks.visual.quantizer.sise",
            "did you mean 'size'"),
    Mistake("model.bottleneck.codebooks.visual.quantizer.type=nearst",
            "model.bottleneck.codebooks.visual.quantizer.type", "did you mean 'nearest'"),
    Mistake("model.encodr={type: conv}", "model.encodr", "did you mean 'encoder'"),
    Mistake("discriminator.layer=3", "discriminator.layer", "did you mean 'layers'"),
    Mistake("validation.evry=3", "validation.evry", "did you mean 'every'"),
    Mistake("validation.data.transfrom={}", "validation.data.transfrom", "did you mean 'transform'"),
    Mistake("objective.generator.nll.distances.pixel.wieght=1", "objective.generator.nll.distances.pixel.wieght",
            "did you mean 'weight'", KL),
    # a class that is not known
    Mistake("model.type=autoencodr", "model.type", "did you mean 'autoencoder'"),
    Mistake("model.encoder.type=conv2", "model.encoder.type", "did you mean 'conv'"),
    Mistake("model.bottleneck.type=vector_quantizer", "model.bottleneck.type", "it became 'tokens'"),
    Mistake("model.bottleneck.type=factorized", "model.bottleneck.type", "quantizer: {type: nearest"),
    Mistake("model.bottleneck.codebooks.visual.quantizer={type: fsq, levels: [4, 4, 3, 3]}",
            "objective.generator.codebook", "codebook does not apply to the codebook 'visual'"),
    Mistake("model.bottleneck.codebooks.visual.quantizer={type: fsq, levels: [1, 4]}",
            "model.bottleneck.codebooks.visual.quantizer.levels.0", "greater than or equal to 2"),
    Mistake("model.bottleneck.codebooks.visual.quantizer={type: lfq, channels: 63}",
            "model.bottleneck.codebooks.visual.quantizer.channels", "less than or equal to 62"),
    Mistake("model.bottleneck.codebooks.visual.quantizer.ema={decay: 0.9}", "objective.generator.codebook",
            "that apply: 'commitment', 'disentangle', 'entropy'"),
    Mistake("model.bottleneck.type=token", "model.bottleneck.type", "did you mean 'tokens'"),
    Mistake("discriminator.type=pacth", "discriminator.type", "did you mean 'patch'"),
    Mistake("objective.generator.pixel.type=l11", "objective.generator.pixel.type", "did you mean 'l1'"),
    Mistake("objective.generator.pixel.type=my_pkg.losses.L1", "objective.generator.pixel.type", "cannot import"),
    Mistake("objective.generator.pixel.type=smalti.losses.mse.MES", "objective.generator.pixel.type",
            "did you mean 'MSE'"),
    Mistake("data.source.type=photo", "data.source.type", "did you mean 'photos'"),
    Mistake("validation.metrics=[psrn]", "validation.metrics.psrn.type", "did you mean 'psnr'"),
    Mistake("objective.teachers={t: {type: vgg}}", "objective.teachers.t.type", "did you mean 'vgg1"),
    Mistake("objective.generator.nll.distances.pixel.loss.type=l_1",
            "objective.generator.nll.distances.pixel.loss.type", "did you mean 'l1'", KL),
    # a type that is missing, or not a mapping where one belongs
    Mistake("objective.generator.pixel={weight: 1.0}", "objective.generator.pixel", "needs 'type'"),
    Mistake("objective.generator.pixel={tpye: l1}", "objective.generator.pixel", "instead of 'tpye'"),
    Mistake("objective.generator.pixel=l1", "objective.generator.pixel", "expected a term"),
    Mistake("model.encoder=conv", "model.encoder", "expected an encoder"),
    Mistake("objective=3", "objective", "expected a mapping"),
    Mistake("objective.generator={}", "objective.generator", "expected a mapping of term names"),
    Mistake("cycle=generator", "cycle", "expected a list"),
    # a value of the wrong type; nothing is coerced
    Mistake("engine.max_steps='20'", "engine.max_steps", "expected a valid integer"),
    Mistake("engine.max_steps=1.5", "engine.max_steps", "integer"),
    Mistake("engine.seed=true", "engine.seed", "integer"),
    Mistake("data.transform.flip=1", "data.transform.flip", "boolean"),
    Mistake("optim.generator.lr='1e-4'", "optim.generator.lr", "number"),
    Mistake("optim.generator.betas=0.5", "optim.generator.betas", "expected a list"),
    Mistake("optim.generator.betas=[0.5]", "optim.generator.betas", "expected 2 values"),
    Mistake("objective.generator.pixel.weight=lots", "objective.generator.pixel.weight", "number"),
    Mistake("objective.generator.adversarial.adaptive=true", "objective.generator.adversarial.adaptive", "mapping"),
    Mistake("model.encoder.multipliers=2", "model.encoder.multipliers", "list"),
    Mistake("data.source.exclude=chelsea", "data.source.exclude", "list"),
    # out of range, or not among the choices
    Mistake("engine.max_steps=0", "engine.max_steps", "greater than or equal to 1"),
    Mistake("engine.precision=fp16", "engine.precision", "bf16 has the range of fp32"),
    Mistake("engine.precision=bf17", "engine.precision", "did you mean 'bf16'"),
    Mistake("optim.generator.lr=-1.0", "optim.generator.lr", "greater than 0"),
    Mistake("optim.generator.betas=[0.5, 1.0]", "optim.generator.betas.1", "less than 1"),
    Mistake("optim.generator.lr_schedule=cos", "optim.generator.lr_schedule", "'cosine'"),
    Mistake("optim.generator.lr_schedule=exponential", "optim.generator", "lr_end=0.0: expected above 0"),
    Mistake("data.batch_size=0", "data.batch_size", "greater than or equal to 1"),
    Mistake("data.transform.crop=centre", "data.transform.crop", "did you mean 'center'"),
    Mistake("objective.generator.pixel.start=-1", "objective.generator.pixel.start", "greater than or equal to 0"),
    Mistake("objective.generator.pixel.every=0", "objective.generator.pixel.every", "greater than or equal to 1"),
    Mistake("objective.generator.pixel.reduction=avg", "objective.generator.pixel.reduction", "'mean'"),
    Mistake("objective.generator.pixel.role=watch", "objective.generator.pixel.role", "'log'"),
    Mistake("model.bottleneck.codebooks.visual.quantizer.size=0", "model.bottleneck.codebooks.visual.quantizer.size",
            "greater than or equal to 1"),
    Mistake("model.encoder.norm=layer", "model.encoder.norm", "'group', 'batch' or 'none'"),
    Mistake("discriminator.norm=bacth", "discriminator.norm", "did you mean 'batch'"),
    Mistake("objective.generator.nll.likelihood=laplacian", "objective.generator.nll.likelihood", "'laplace'", KL),
    # something that must be there is not
    Mistake("model.bottleneck={type: tokens, codebooks: {visual: {quantizer: {type: nearest, size: 4, channels: 4}}}}",
            "model.bottleneck.in_channels", "missing option"),
    Mistake("objective.generator.adversarial.adaptive={eps: 0.1}",
            "objective.generator.adversarial.adaptive.reference", "missing option"),
    Mistake("engine={seed: 1}", "engine.max_steps", "missing option"),
    Mistake("data={batch_size: 4}", "data.source", "missing option"),
    Mistake("objective={discriminator: {a: {type: hinge}}}", "objective.generator", "missing phase"),
    Mistake("optim={generator: {lr: 1.0}}", "optim.discriminator", "has no optimizer"),
    Mistake("optim.discriminator={lr: 1.0e-4}", "optim.discriminator", "nothing to optimise", KL),
    Mistake("objective.discriminator={a: {type: hinge}}", "discriminator", "missing section", KL),
    # a graph that cannot be
    Mistake("model.decoder.latent_channels=5", "model", "decoder.latent_channels=5: expected"),
    Mistake("model.encoder.out_channels=6", "model", "expected encoder.out_channels=6"),
    Mistake("model.encoder.multipliers=[1, 2, 2]", "model", "decoder.factor=2: expected encoder.factor=4"),
    Mistake("model.encoder.attention_levels=[4]", "model.encoder", "attention_levels=[4]"),
    Mistake("model.encoder.groups=3", "model.encoder", "groups"),
    Mistake("data.transform.size=31", "data.transform.size", "divisible by the model's factor 2"),
    Mistake("data.transform={}", "data.transform", "one size"),
    Mistake("data.transform.size=8", "data.transform.size", "the discriminator needs at least 12"),
    Mistake("discriminator.in_channels=1", "discriminator.in_channels", "expected 3"),
    Mistake("discriminator.condition_channels=2", "discriminator.condition_channels", "no column 'condition'"),
    Mistake("data.source={type: image_folder, path: x, image_channels: 1}", "data.source", "images with 1 channels"),
    Mistake("cycle=[generator]", "cycle", "discriminator phase has terms and never moves"),
    Mistake("cycle=[generator, generator, discriminator]", "cycle", "exactly one generator"),
    Mistake("cycle=[generator, discriminater]", "cycle", "did you mean 'discriminator'"),
    Mistake("validation.monitor=fid", "validation.monitor", "not among the metrics"),
    Mistake("objective.generator.adversarial.adaptive.reference=[pixle]", "objective.generator.adversarial.adaptive",
            "did you mean 'pixel'"),
    Mistake("objective.generator.adversarial.adaptive.reference=[adversarial]",
            "objective.generator.adversarial.adaptive", "the term itself"),
    Mistake("objective.generator.adversarial.adaptive.reference=[codebook]", "objective.generator.adversarial.adaptive",
            "no gradient at the judged image"),
    Mistake("objective.generator.pixel.adaptive={reference: [perceptual]}", "objective.generator.pixel.adaptive",
            "does not listen to the discriminator"),
    Mistake("objective.discriminator.adversarial.adaptive={reference: [pixel]}",
            "objective.discriminator.adversarial.adaptive", "belongs to the generator's phase"),
    Mistake("objective.generator.nll.distances={}", "objective.generator.nll", "at least one distance", KL),
    # a name that is not there, or not in this phase
    Mistake("objective.generator.pixel.inputs={target: batch.imge}", "objective.generator.pixel.inputs.target",
            "did you mean 'image'"),
    Mistake("objective.generator.pixel.inputs={tagret: target}", "objective.generator.pixel.inputs.tagret",
            "did you mean 'target'"),
    Mistake("objective.generator.pixel.inputs={prediction: reconstrction}",
            "objective.generator.pixel.inputs.prediction", "did you mean 'reconstruction'"),
    Mistake("objective.generator.pixel.inputs={weight: batch.maks}", "objective.generator.pixel.inputs.weight",
            "no column 'maks'"),
    Mistake("objective.generator.kl={type: kl}", "objective.generator.kl.inputs", "'posterior' is not provided"),
    Mistake("objective.generator.codebook={type: codebook}", "objective.generator.codebook.inputs",
            "'codebooks' is not provided", KL),
    Mistake("objective.generator.pixel.inputs={prediction: codebooks.semantic.z}",
            "objective.generator.pixel.inputs.prediction", "codebooks.semantic.z"),
    Mistake("objective.generator.feature={type: mse, inputs: {target: teacher.clip}}",
            "objective.generator.feature.inputs.target", "teachers is empty"),
    Mistake("objective.generator.adversarial={type: hinge}", "objective.generator.adversarial.inputs",
            "needs a discriminator", KL),
    Mistake("objective.discriminator.extra={type: commitment}", "objective.discriminator.extra.inputs",
            "only in the generator phase"),
    # generators, critics, penalties, lazy terms, augmentations
    Mistake("model.type=stylegan3", "model.type", "did you mean 'stylegan2'", GAN),
    Mistake("model.image_size=24", "model", "expected a power of two", GAN),
    Mistake("model.image_size=32", "data.transform.size", "model.image_size is 32 x 32", GAN),
    Mistake("model.latent_channels=8", "model.latent_channels", "unknown option", GAN),
    Mistake("model.style_mixing=1.5", "model.style_mixing", "less than or equal to 1", GAN),
    Mistake("model.num_classes=10", "model.num_classes", "no column 'label'", GAN),
    Mistake("model.image_channels=1", "discriminator.in_channels", "3: expected 1", GAN),
    Mistake("model.output=skips", "model.output", "did you mean 'skip'", GAN),
    Mistake("discriminator.image_size=8", "data.transform.size", "discriminator.image_size is 8 x 8", GAN),
    Mistake("discriminator.num_classes=10", "discriminator.num_classes", "no column 'label'", GAN),
    Mistake("discriminator.augment={type: adda}", "discriminator.augment.type", "did you mean 'ada'", GAN),
    Mistake("discriminator.augment=ada", "discriminator.augment", "a mapping with 'type'", GAN),
    Mistake("discriminator.augment.target=2.0", "discriminator.augment.target", "less than or equal to 1", GAN),
    Mistake("discriminator.augment.intervall=4", "discriminator.augment.intervall", "did you mean 'interval'", GAN),
    Mistake("discriminator.augment.groups=[blit, colour]", "discriminator.augment.groups.1", "did you mean 'color'",
            GAN),
    Mistake("discriminator.augment.policy=[colour]", "discriminator.augment.policy.0", "did you mean 'color'", WGAN),
    Mistake("discriminator.augment.policy=[]", "discriminator.augment", "expected some of", WGAN),
    Mistake("objective.discriminator.r1.gamma=10.0", "objective.discriminator.r1.gamma", "unknown option", GAN),
    Mistake("objective.discriminator.r1.evry=16", "objective.discriminator.r1.evry", "did you mean 'every'", GAN),
    Mistake("objective.discriminator.r1.every=16.0", "objective.discriminator.r1.every", "integer", GAN),
    Mistake("objective.discriminator.r1.every=-1", "objective.discriminator.r1.every", "greater than or equal to 1",
            GAN),
    Mistake("objective.discriminator.r1.lazy_scale=16", "objective.discriminator.r1.lazy_scale", "boolean", GAN),
    Mistake("objective.discriminator.r1.norm=HWC", "objective.discriminator.r1.norm", "'sample'", GAN),
    Mistake("objective.discriminator.r1.interval=16", "objective.discriminator.r1.interval", "unknown option", GAN),
    Mistake("objective.discriminator.r1.type=r_1", "objective.discriminator.r1.type", "did you mean 'r1'", GAN),
    Mistake("objective.discriminator={r1: {type: r1, every: 16}}", "objective.discriminator",
            "every term is lazy", GAN),
    Mistake("objective.discriminator.path={type: path_length}", "objective.discriminator.path.inputs",
            "only in the generator phase", GAN),
    Mistake("objective.discriminator.shift={type: disc_shift, inputs: {logits_fake: logit_real}}",
            "objective.discriminator.shift.inputs.logits_fake", "did you mean 'logits_real'", GAN),
    Mistake("objective.discriminator.drift.loss_weight=0.001", "objective.discriminator.drift.loss_weight",
            "did you mean 'weight'", GAN),
    Mistake("objective.discriminator.lecam={type: lecam, level: batched}", "objective.discriminator.lecam.level",
            "did you mean 'batch'", GAN),
    Mistake("objective.discriminator.lecam={type: lecam, decay: 1.5}", "objective.discriminator.lecam.decay",
            "less than or equal to 1", GAN),
    Mistake("objective.discriminator.cr={type: consistency, shift: -1}", "objective.discriminator.cr.shift",
            "greater than or equal to 0", GAN),
    Mistake("objective.discriminator.near={type: approximate_r1, sigma: 0.0}", "objective.discriminator.near.sigma",
            "greater than 0", GAN),
    Mistake("objective.discriminator.div={type: wgan_div, power: 0.5}", "objective.discriminator.div.power",
            "greater than or equal to 1", WGAN),
    Mistake("objective.discriminator.penalty.inputs={fake: fakes}", "objective.discriminator.penalty.inputs.fake",
            "did you mean 'fake'", WGAN),
    Mistake("objective.discriminator.penalty.inputs={mask: batch.mask}",
            "objective.discriminator.penalty.inputs.mask", "no column 'mask'", WGAN),
    Mistake("objective.discriminator.penalty.weight='10'", "objective.discriminator.penalty.weight", "number", WGAN),
    Mistake("objective.discriminator.energy={type: ebgan}", "objective.discriminator.energy.inputs",
            "'reconstruction_real'", WGAN),
    Mistake("objective.discriminator.adversarial.real_label=0.9", "objective.discriminator.adversarial.real_label",
            "unknown option", WGAN),
    Mistake("objective.discriminator.adversarial={type: vanilla, real_label: 1.9}",
            "objective.discriminator.adversarial.real_label", "less than or equal to 1", WGAN),
    Mistake("objective.discriminator.adversarial.type=smalti.losses.wgan.WGANGenerator",
            "objective.discriminator.adversarial.type", "for the generator phase", WGAN),
    Mistake("objective.discriminator.pixel={type: l1}", "objective.discriminator.pixel",
            "nothing that the discriminator says", WGAN),
    Mistake("objective.generator.penalty={type: r1}", "objective.generator.penalty", "nothing that the model makes",
            WGAN),
    Mistake("objective.generator.path.latents=4", "objective.generator.path.latents", "unknown option", GAN),
    Mistake("objective.generator.path.shrink=0", "objective.generator.path.shrink", "greater than or equal to 1", GAN),
    Mistake("objective.generator.path.inputs={latents: latent}", "objective.generator.path.inputs.latents",
            "did you mean 'latents'", GAN),
    Mistake("objective.generator.path={type: path_length}", "objective.generator.path.inputs", "'generator'"),
    Mistake("objective.generator.kl={type: kl}", "objective.generator.kl.inputs", "'posterior'", WGAN),
    Mistake("objective.generator.same={type: feature_matching, inputs: {features_real: feature_real}}",
            "objective.generator.same.inputs.features_real", "did you mean 'features_real'", GAN),
    Mistake("objective.generator.average={type: relativistic_average, form: least_square}",
            "objective.generator.average.form", "did you mean 'least_squares'", GAN),
    Mistake("optim.discriminator.type=rmspropp", "optim.discriminator.type", "did you mean 'rmsprop'", WGAN),
    Mistake("optim.discriminator.betas=[0.1, 0.9]", "optim.discriminator.betas", "rmsprop has no use for it", WGAN),
    Mistake("optim.discriminator.lazy_adam=16", "optim.discriminator.lazy_adam", "rmsprop has no use for it", WGAN),
    Mistake("optim.generator.alpha=0.9", "optim.generator.alpha", "adam has no use for it", GAN),
    Mistake("optim.generator.lazy_adam=8", "optim.generator.lazy_adam", "no term of this phase has every: 8", GAN),
    Mistake("objective.discriminator.r1.every=1", "optim.discriminator.lazy_adam", "has every: 16", GAN),
    Mistake("optim.generator.lazy_adam=0", "optim.generator.lazy_adam", "greater than or equal to 1", GAN),
    Mistake("engine.batches=freshly", "engine.batches", "did you mean 'fresh'", GAN),
    Mistake("engine.ema={halflife: 1000}", "engine.ema.halflife", "did you mean 'half_life'", GAN),
    Mistake("cycle=[discriminator*0, generator]", "cycle", "expected a phase such as", WGAN),
    Mistake("cycle=[{phase: discriminator, weight_clipp: 0.1}, generator]", "cycle", "did you mean 'weight_clip'",
            WGAN),
    Mistake("cycle=[{phase: discriminator, repeat: 0}, generator]", "cycle", "repeat=0", WGAN),
    Mistake("cycle=[{phase: discriminator, weight_clip: -0.1}, generator]", "cycle", "weight_clip=-0.1", WGAN),
    Mistake("data.transform.size=9", "data.transform.size", "model.image_size is 8 x 8", WGAN),
    Mistake("data.source={type: photos}", "data.source", "images with 3 channels", WGAN),
    Mistake("data.source.part=held_in", "data.source.part", "did you mean 'held_out'", WGAN),
    # columns, extractors, teachers, several codebooks
    Mistake("objective.generator.nll.inputs={weight: batch.masks}", "objective.generator.nll.inputs.weight",
            "did you mean 'mask'", KL),
    Mistake("objective.generator.l1.inputs={weight: mask}", "objective.generator.l1.inputs.weight",
            "did you mean 'batch.mask'", COLUMNS),
    Mistake("objective.generator.l1.weighting=mean", "objective.generator.l1.weighting", "'weighted_mean'", COLUMNS),
    Mistake("objective.generator.l1.per_sample=1", "objective.generator.l1.per_sample", "boolean", COLUMNS),
    Mistake("objective.generator.l1.sample_wise=true", "objective.generator.l1.sample_wise", "unknown option", COLUMNS),
    Mistake("objective.generator.composed={type: l1_composition}", "objective.generator.composed.inputs",
            "'alpha' of the loss has no value", COLUMNS),
    Mistake("objective.generator.composed.inputs.foregrund=prediction",
            "objective.generator.composed.inputs.foregrund", "did you mean 'foreground'", COLUMNS),
    Mistake("objective.generator.composed.inputs.foreground=batch.foreground", "objective.generator.composed",
            "nothing that the model makes",
            COLUMNS.replace("background: backgrounds}", "background: backgrounds, foreground: foregrounds}")),
    Mistake("objective.generator.text={type: clip, extractor: {type: clip, weights: random}}",
            "objective.generator.text.inputs", "'text' of the loss has no value", COLUMNS),
    Mistake("objective.generator.text.extractor={type: vgg19}", "objective.generator.text.extractor.type",
            "known: clip", COLUMNS),
    Mistake("objective.generator.text.extractor.type=clipp", "objective.generator.text.extractor.type",
            "did you mean 'clip'", COLUMNS),
    Mistake("objective.generator.text.extractor.revision=main", "objective.generator.text.extractor",
            "only with the name of a repository", COLUMNS),
    Mistake("objective.generator.text.pairs=each", "objective.generator.text.pairs", "'matched'", COLUMNS),
    Mistake("objective.generator.features.layer_weights=[]", "objective.generator.features", "layer_weights", COLUMNS),
    Mistake("objective.generator.features.layer_weights=[1.0, -1.0]",
            "objective.generator.features.layer_weights.1", "greater than or equal to 0", COLUMNS),
    Mistake("objective.generator.features.extractor.layers=[relu1_2, conv5_5]",
            "objective.generator.features.extractor", "did you mean 'conv5_4'", COLUMNS),
    Mistake("objective.generator.features.extractor.wieghts=random",
            "objective.generator.features.extractor.wieghts", "did you mean 'weights'", COLUMNS),
    Mistake("objective.generator.features.criterion=l2", "objective.generator.features.criterion", "'mse'", COLUMNS),
    Mistake("objective.generator.features.style_weight=1.0", "objective.generator.features.style_weight",
            "unknown option", COLUMNS),
    Mistake("objective.generator.structure.window=0", "objective.generator.structure.window",
            "greater than or equal to 1", COLUMNS),
    Mistake("objective.generator.structure.negative=clip", "objective.generator.structure.negative",
            "'shift'", COLUMNS),
    Mistake("objective.generator.smooth={type: tv, norm: l3}", "objective.generator.smooth.norm", "'l1'", COLUMNS),
    Mistake("objective.generator.round={type: charbonnier, eps: 0.0}", "objective.generator.round.eps",
            "greater than 0", COLUMNS),
    Mistake("objective.generator.edges={type: gradiant}", "objective.generator.edges.type", "did you mean 'gradient'",
            COLUMNS),
    Mistake("objective.generator.apart.pairs=[[look, sens]]", "objective.generator.apart", "sens", COLUMNS),
    Mistake("objective.generator.commitment.only=[looks]", "objective.generator.commitment", "looks", COLUMNS),
    Mistake("objective.generator.meaning.inputs.student=heads.meanin", "objective.generator.meaning.inputs.student",
            "did you mean 'heads.meaning'", COLUMNS),
    Mistake("objective.generator.meaning.inputs.teacher=teacher.clap", "objective.generator.meaning.inputs.teacher",
            "did you mean 'teacher.clip'", COLUMNS),
    Mistake("objective.teachers.clip.weights=3", "objective.teachers.clip.weights", "string", COLUMNS),
    Mistake("model.heads.meaning.codebook=sence", "model", "did you mean 'sense'", COLUMNS),
    Mistake("data.source.columns=[mask]", "data.source.columns", "mapping", COLUMNS),
    # sizes that a loss does not take, found without data
    Mistake("objective.generator.structure.scale_weights=[0.2, 0.2, 0.2, 0.2, 0.2]", "objective.generator.structure",
            "pixels", COLUMNS),
    Mistake("objective.generator.l1.reduction=none", "objective.generator.l1", "expected a scalar", COLUMNS),
    Mistake("objective.generator.apart={type: disentangle}", "objective.generator.apart", "at least two"),
    # classes from elsewhere
    Mistake("model={type: torch.nn.Identity}", "model.type", "it has no judged"),
    Mistake("objective.generator.pixel={type: torch.nn.functional.l1_los}", "objective.generator.pixel.type",
            "did you mean 'l1_loss'"),
    Mistake("objective.generator.pixel={type: torch.nn.L1Loss}", "objective.generator.pixel.inputs",
            "input 'input' of the loss has no value"),
    Mistake("objective.generator.pixel={type: torch.pi}", "objective.generator.pixel.type", "is a float"),
]

# Unusual, and right: recipe -> what may be set in it.
RIGHT = [
    (GAN, "objective.generator.path={type: path_length, every: 4, inputs: {latents: batch.noise}}"),
    (GAN, "objective.generator.same={type: feature_matching, weight: 10.0}"),
    (GAN, "objective.generator.flat={type: r1, role: log}"),
    (GAN, "objective.generator.relative={type: relativistic}"),
    (GAN, "objective.discriminator.seen={type: l1, role: log}"),
    (GAN, "objective.discriminator.bcr={type: consistency, inputs: {fake: fake}}"),
    (GAN, "objective.discriminator.shift={type: disc_shift, inputs: {logits_fake: logits_real}}"),
    (GAN, "discriminator.augment=null"),
    (WGAN, "cycle=[discriminator, {phase: generator, reuse: true}, {phase: discriminator, repeat: 4, weight_clip: 1}]"),
    (WGAN, "objective.discriminator.penalty={type: lipschitz_penalty, norm: pixel, reduction: batch_sum}"),
    (VQ, "objective.generator.latent={type: mse, inputs: {prediction: bottleneck.latent, target: codebooks.visual.z}}"),
    (VQ, "objective.generator.pixel={type: torch.nn.L1Loss, inputs: {input: prediction}}"),
    (VQ, "objective.generator.pixel={type: torch.nn.functional.l1_loss, inputs: {input: prediction}}"),
    (KL, "objective.generator.nll.inputs={weight: batch.mask}"),
    (COLUMNS, "objective.generator.l1.inputs={weight: batch.anything_of_the_table}"),
    (COLUMNS, "objective.generator.far={type: clip, extractor: {type: clip, weights: random}, pairs: all,"
              " inputs: {text: batch.text, weight: batch.weights}}"),
]
# fmt: on
