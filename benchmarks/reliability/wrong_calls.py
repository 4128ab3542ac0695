"""Command lines with a mistake: each ends with exit code 2 and one message, in time, and changes no file.

python -m benchmarks.reliability.wrong_calls [WORD]   # only calls that hold WORD
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.reliability._children import in_a_child

RECIPE = Path(__file__).parents[2] / "tests" / "cli" / "tiny.yaml"
SECONDS = 10.0

CALLS = r"""
frobnicate
compare
compare nowhere
compare text.txt
compare photos
compare run --html
protocols
protocols frobnicate
protocols show
protocols show amd
protocols show adm@0
protocols show adm@x
protocols show whole@64
protocols show text.txt
protocols show words.yaml
protocols show bomb.yaml
protocols show nowhere.yaml
protocols diff adm
protocols diff adm amd
evaluate
evaluate run
evaluate run --data photos --protocol amd
evaluate run --data photos --protocol adm@x
evaluate run --data photos --protocol words.yaml
evaluate run --data photos --protocol adm --size 0
evaluate run --data photos --protocol whole --size 16
evaluate jpeg:q=0 --data photos
evaluate jpeg:x --data photos
evaluate webp:q=101 --data photos
evaluate images:nowhere --data photos
evaluate images:empty --data photos
evaluate no.module:thing --data photos
evaluate os:abort --data photos
evaluate run --data photos --limit 0
evaluate run --data photos --pictures -1
evaluate run --data photos --out text.txt
evaluate run --data photos --metrics psnr,psnr
evaluate run --data photos --metrics fid
evaluate run --data photos --metrics fid --inception nowhere.pth
bench step --recipe frobnicate
bench step --recipe tiny.yaml --channels 32
bench step --recipe tiny.yaml --size 0
bench step --recipe tiny.yaml --set x=1
bench step --set engine.seed=1
trian quickstart
--no-such-option
recipes
recipes frobnicate
bench frobnicate
bench
train
train quickstrat
train nowhere.yaml
train ""
train .
train photos
train photos/a.png
train text.txt
train binary.yaml
train open.yaml
train twice.yaml
train bomb.yaml
train deep.yaml
train words.yaml
train list.yaml
train nothing.yaml
train tiny.yaml --out
train tiny.yaml --out run
train tiny.yaml --out photos
train tiny.yaml --out photos --resume
train tiny.yaml --out text.txt
train tiny.yaml --out text.txt/x
train tiny.yaml --out stopped
train tiny.yaml --out run --resume --set optim.generator.lr=0.5
train tiny.yaml --out damaged --resume
train tiny.yaml --out new --data nowhere
train tiny.yaml --out new --data empty
train tiny.yaml --out new --data text.txt
train tiny.yaml --out new --data texts
train tiny.yaml --out new --set
train tiny.yaml --out new --set engine
train tiny.yaml --out new --set =1
train tiny.yaml --out new --set engine..max_steps=1
train tiny.yaml --out new --set engine.max_steps=many
train tiny.yaml --out new --set engine.max_steps=0
train tiny.yaml --out new --set engine.max_steps=-1
train tiny.yaml --out new --set engine.max_steps=1e400
train tiny.yaml --out new --set engine.max_steps=1.5
train tiny.yaml --out new --set engine.max_stpes=1
train tiny.yaml --out new --set engine.device=gpu
train tiny.yaml --out new --set engine.device=cuda
train tiny.yaml --out new --set engine.precision=fp16
train tiny.yaml --out new --set engine.trackers=[nowhere]
train tiny.yaml --out new --set engine.seed=99999999999999999999
train tiny.yaml --out new --set data.batch_size=0
train tiny.yaml --out new --set data.batch_size=1000000000000
train tiny.yaml --out new --set data.transform.size=99999999
train tiny.yaml --out new --set data.source.type=photo
train tiny.yaml --out new --set data.source.include=[chin]
train tiny.yaml --out new --set optim.generator.lr=fast
train tiny.yaml --out new --set optim.generator.lr=.nan
train tiny.yaml --out new --set optim.generator.lr=.inf
train tiny.yaml --out new --set optim.discriminator.lr=1
train tiny.yaml --out new --set objective.generator.pixel.type=mes
train tiny.yaml --out new --set objective.generator.pixel.type=.x
train tiny.yaml --out new --set objective.generator.pixel.type=x.x.x
train tiny.yaml --out new --set objective.generator.pixel.type=os.abort
train tiny.yaml --out new --set objective.generator.pixel.type=builtins.exec
train tiny.yaml --out new --set objective.generator.pixel.inputs.target=nothing
train tiny.yaml --out new --set objective.generator.pixel.inputs.target=prediction
train tiny.yaml --out new --set objective.generator.pixel.weight=.nan
train tiny.yaml --out new --set objective.generator=null
train tiny.yaml --out new --set objective.generator={}
train tiny.yaml --out new --set objective.discriminator.x={type:hinge}
train tiny.yaml --out new --set model.type=autoencodr
train tiny.yaml --out new --set model=null
train tiny.yaml --out new --set model={init:nowhere}
train tiny.yaml --out new --set model={init:photos}
train tiny.yaml --out new --set model.bottleneck.codebook_size=0
train tiny.yaml --out new --set model.bottleneck.codebook_size=9223372036854775808
train tiny.yaml --out new --set model.decoder.channels=9
train tiny.yaml --out new --set cycle=[null]
train tiny.yaml --out new --set cycle=[1]
train tiny.yaml --out new --set cycle=[discriminator]
train tiny.yaml --out new --set cycle=[generator,generator]
train tiny.yaml --out new --set a.b.c.d.e=1
train tiny.yaml --out new --set engine.ema={decay:2}
train tiny.yaml --out new --set "engine.max_steps=[1"
train tiny.yaml --out new --set "engine={a: &a [*a]}"
train tiny.yaml --out new --set "engine=!!python/object/apply:os.abort []"
train tiny.yaml extra --out new
train tiny.yaml --out new --frobnicate
train tiny.yaml --out new --dry-run --set engine.max_steps=x
train evil.yaml --out new
recipes show
recipes show nowhere
recipes show quickstart --set a=b --resolved
recipes show tiny.yaml --set model.type=[1,2] --resolved
recipes show text.txt
recipes check nowhere.yaml
recipes check open.yaml tiny.yaml
recipes check evil.yaml
recipes check photos
recipes check binary.yaml
recipes check tiny.yaml --set engine.max_steps=x --json
recipes list extra
recipes schema --json
recipes schema --force
recipes schema --file text.txt
tokenize
tokenize run
tokenize run --data photos
tokenize nowhere --data photos --out new
tokenize run --data nowhere --out new
tokenize run --data photos --out photos
tokenize run --data photos --out new --views ninety
tokenize run --data photos --out new --engine spark
tokenize run --data photos --out new --actors 2
tokenize run --data photos --out new --size 0
tokenize run --data photos --out new --size 8 --batch-size 0
tokenize run --data '{type: digit}' --out new
tokenize generator --data photos --out new
detokenize
detokenize nowhere --out new
detokenize photos --out new
detokenize text.txt --out new
tokens
tokens nowhere
tokens photos --check
tokens text.txt
tokens run
recipes terms --markdwon
evaluate
evaluate run
evaluate run --data
evaluate run --data nowhere
evaluate run --data empty
evaluate run --data text.txt
evaluate run --data texts
evaluate nowhere --data photos
evaluate photos --data photos
evaluate text.txt --data photos
evaluate empty --data photos
evaluate stopped --data photos
evaluate generator --data photos
evaluate evil --data photos
evaluate run@7 --data photos
evaluate run@first --data photos
evaluate run@ --data photos
evaluate broken-config --data photos
evaluate damaged --data photos
evaluate run --data photos --metrics psnrr
evaluate run --data photos --metrics ""
evaluate run --data photos --metrics psnr,,ssim
evaluate run --data photos --metrics os.abort
evaluate run --data photos --size 0
evaluate run --data photos --size big
evaluate run --data photos --size 99999999
evaluate run --data photos --size 65535 --batch-size 2147483647
evaluate run --data photos --batch-size 0
evaluate run --data photos --batch-size 1e20
evaluate run --data photos --max-pixels 0
evaluate run --data photos --max-pixels 10
evaluate run --data photos --value-range huge
evaluate run --data photos --value-range 0
evaluate run --data photos --background pink
evaluate run --data photos --background 1,2
evaluate run --data photos --background 1,2,300
evaluate run --data photos --device gpu
evaluate run --data photos --device cuda:99
evaluate run --data photos --device cpu:x
reconstruct
reconstruct run
reconstruct run photos/a.png
reconstruct run nowhere.png --out new
reconstruct run photos --out new
reconstruct run text.txt --out new
reconstruct run texts/a.png --out new
reconstruct run photos/a.png --out text.txt
reconstruct run photos/a.png --out text.txt/x
reconstruct run photos/a.png photos/a.png --out new
reconstruct run photos/a.png texts/a.png --out new
reconstruct run photos/a.png --out done
reconstruct run photos/a.png --out new --max-pixels 5
reconstruct run photos/a.png --out new --device meta
reconstruct generator photos/a.png --out new
reconstruct run/checkpoints photos/a.png --out new
reconstruct stopped photos/a.png --out new
reconstruct run@99999999999999999999 photos/a.png --out new
encode
encode run
encode run --data photos
encode run --data photos --out
encode run --data nowhere --out new.npz
encode run --data empty --out new.npz
encode run --data odd --out new.npz
encode run --data photos --out done.npz
encode run --data photos --out photos
encode run --data photos --out text.txt/x.npz
encode run --data photos --out new.npz --size 99999999
encode run --data photos --out new.npz --size 10
encode run --data photos --out new.npz --size -4
encode run --data photos --out new.npz --size 65532 --batch-size 2000000000
encode generator --data photos --out new.npz
encode model.safetensors --data photos --out new.npz
convert
convert run
convert nowhere new
convert text.txt new
convert nothing.yaml new
convert photos new
convert photos/a.png new
convert run photos
convert run new --to nowhere
convert run new --to llamagen
convert run new --to latent-diffusion --scaling-factor 0
convert run new --to diffusers --scaling-factor nan
convert run new --from llamagen
convert run new --from nowhere
convert run new --weights best
convert run new --heads 0
convert run new --heads 3
convert run new --keep-discriminator
convert generator new --to diffusers
convert page.safetensors new
convert pointer.safetensors new
convert cut.safetensors new
convert evil.pt new
convert evil new
convert model.gguf new
latent-stats
latent-stats run --data nowhere
latent-stats run --data photos --size 10
latent-stats generator --data photos
latent-stats nowhere --data photos
latent-stats run --data photos --batches 0
sample
sample run --out new.png
sample generator
sample generator --out new.jpg
sample generator --out new
sample generator --out done.png
sample generator --out photos
sample generator --out text.txt/x.png
sample generator --out new.png --seed 1e20
sample generator --out new.png --seed -1
sample generator --out new.png --seed 9223372036854775808
sample generator --out new.png --count 0
sample generator --out new.npz --count 2147483647
sample generator --out new.png --count 2147483647
sample generator --out new.png --truncation 2
sample generator --out new.png --truncation nan
sample generator --out new.png --truncation=-0.1
sample generator --out new.png --label 3
sample generator --out new.png --interpolate 1
sample generator --out new.npz --interpolate 2147483647
sample generator --out new.png --columns 0
sample generator --out new.png --device tpu
sample generator --out new.png --guidance 2
sample generator --out new.png --top-k 3
sample generator --out new.png --temperature 1
sample generator --out new.png --tokenizer run
sample generator --npz new.png
sample generator --folder photos
sample generator --out new.npz --npz other.npz
sample far
sample far --out new.png
sample far --out new.png --tokenizer nowhere
sample far --out new.png --tokenizer generator
sample far --out new.png --tokenizer run
sample far --out new.png --truncation 0.5
sample far --out new.png --interpolate 4
sample far --out new.png --classes 10
sample far --out new.png --classes cat
sample far --out new.png --classes ""
sample far --out new.png --classes 5-2
sample far --out new.png --classes 99999999999999999999
sample far --out new.png --classes 1 --label 1
sample far --out new.png --label 10
sample far --out new.png --guidance much
sample far --out new.png --guidance nan
sample far --out new.png --guidance=-1
sample far --out new.png --guidance one=2,three=1
sample far --out new.png --guidance one=2,one=1
sample far --out new.png --guidance one=
sample far --out new.png --guidance-schedule steep
sample far --out new.png --guidance-interval 3
sample far --out new.png --guidance-interval 3,2
sample far --out new.png --guidance-interval 0,16
sample far --out new.png --temperature=-1
sample far --out new.png --temperature inf
sample far --out new.png --top-k=-1
sample far --out new.png --top-p 0
sample far --out new.png --top-p 2
sample far --out new.png --batch-size 0
train tiny-far-digits --data photos --out new
train tiny-far-digits --out new --set data.source.num_classes=0
train tiny-far-digits --out new --set engine.sample_every=10
train far-digits --out new
train tiny-digits-tokenizer --out new --set objective.generator.t={type:cross_entropy}
sample nowhere --out new.png
sample evil --out new.png
report
report nowhere
report photos
report text.txt
report empty
report run run
report latin
report run stopped
report run run --out new.html
report run nowhere --out new/new.html
report run latin --out new.html
report run --out done.png
report run --out photos
report run --out evil/config.json
report run --out done.png/new.html
app
app nowhere
app run run
app run nowhere
app run --port 0
app run --port 99999
app run --port x
app run --longest 1
app run --longest 99999
app run --device gpu
app photos
app text.txt
app model.safetensors
app evil
app damaged
app evil.pt
doctor
doctor nowhere
doctor photos
doctor text.txt
doctor empty
doctor latin
doctor run run
doctor run --recipe tiny.yaml
doctor run --data photos
doctor run --set engine.seed=1
doctor run --steps 0
doctor run --steps many
doctor run --strickt
doctor --data photos
doctor --recipe quickstrat
doctor --recipe nowhere.yaml
doctor --recipe text.txt
doctor --recipe tiny.yaml --data nowhere
doctor --recipe tiny.yaml --data empty
doctor --recipe tiny.yaml --data texts
doctor --recipe tiny.yaml --set engine.sede=1
doctor --recipe tiny.yaml --set objective.generator.pixel.start={when:platau}
doctor --recipe tiny.yaml --steps -1
doctor --recipe evil.yaml
bench step --channels 33
bench step --channels 0
bench step --size 8
bench step --batch 2147483647
bench quantizer --tokens 0
bench quantizer --codes 2147483647 --channels 2147483647
bench quantizer --device gpu
bench data --images 0
bench data --size 0
bench data --repeats x
bench encode --size 3
"""


def prepare(folder: Path) -> None:
    """Makes what the calls name: a trained run, one that was stopped, a generator, damaged and foreign files."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    import smalti

    os.chdir(folder)
    for name in ("photos", "empty", "texts", "odd", "done", "evil"):
        (folder / name).mkdir()
    Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 20).convert("RGB").save("photos/a.png")
    Image.new("RGB", (18, 15)).save("odd/odd.png")
    shutil.copy("photos/a.png", "done/a.png")
    shutil.copy("photos/a.png", "done.png")
    Path("done.npz").write_bytes(b"numbers")
    shutil.copy(RECIPE, "tiny.yaml")
    smalti.train("tiny.yaml", out="run", quiet=True)
    smalti.build("tiny-wgan-digits").save_pretrained("generator")
    smalti.build("tiny-far-digits").save_pretrained("far")
    _damage_runs()
    texts = {
        "text.txt": "words",
        "texts/a.png": "no picture",
        "nothing.yaml": "",
        "words.yaml": "just words",
        "list.yaml": "- a\n- b\n",
        "open.yaml": "model: [unclosed\n",
        "twice.yaml": "model: {}\nmodel: {}\n",
        "deep.yaml": "a: " + "[" * 5000,
        "bomb.yaml": "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "evil.yaml": "model: {init: evil}\n",
        "evil/config.json": '{"model": {"type": "subprocess.Popen", "args": ["touch", "ran"]}, "format_version": 1}',
        "page.safetensors": "<!DOCTYPE html><html>404</html>",
        "pointer.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "model.gguf": "GGUF\x03\x00\x00\x00",
    }
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")
    Path("binary.yaml").write_bytes(bytes(range(256)))
    save_file({"a": torch.zeros(4)}, "model.safetensors")
    Path("cut.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:20])
    torch.save({"state_dict": Path}, "evil.pt")


def _damage_runs() -> None:
    for name in ("stopped", "damaged", "broken-config", "latin"):
        shutil.copytree("run", name)
    shutil.rmtree("stopped/model")
    for state in Path("damaged").glob("checkpoints/*/state.pt"):
        state.write_bytes(b"")
    weights = Path("damaged/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-3])
    Path("broken-config/model/config.json").write_text("{")
    Path("latin/metrics.jsonl").write_bytes(b"\xe9\xff\n")
    Path("latin/recipe.yaml").write_bytes(b"model: \xe9\n")


def call(words: list[str]) -> list[Any]:
    """Exit code and what stands on standard output and error after a command line."""
    from smalti.cli import main as smalti_main

    sys.argv = ["smalti", *words]
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams
    code: Any = 0
    try:
        smalti_main()
    except SystemExit as end:
        code = end.code
    texts = []
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "backslashreplace"))  # type: ignore[attr-defined]
    return [code, *texts]


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def faults(code: Any, out: str, err: str) -> list[str]:
    """What is wrong with the answer to a wrong call."""
    messages = [line for line in err.splitlines() if line.lower().startswith(("error:", "error ", "╭─ error"))]
    found = [] if code == 2 else [f"exit code {code}"]
    found += ["a traceback"] if "Traceback" in out + err else []
    if len(messages) != 1 and "Usage:" not in out + err and "problem" not in out + err:
        found.append(f"{len(messages)} messages")
    return found


def main(only: str) -> int:
    import torch  # noqa: F401  # once, not in every child

    bad: list[str] = []
    slowest, count = 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        before = contents(folder)
        for line in filter(None, CALLS.splitlines()):
            if only not in line:
                continue
            words = _words(line)
            outcome = in_a_child(lambda words=words: call(words), limit=60.0)
            found = faults(*outcome.value) if outcome.value else [outcome.died]
            slowest, count = max(slowest, outcome.seconds), count + 1
            found += [f"{outcome.seconds:.1f} s"] if outcome.seconds > SECONDS else []
            after = contents(folder)
            if after != before:
                found.append(f"changed {sorted(set(before.items()) ^ set(after.items()))[:4]}")
                before = after
            if found or only:
                said = "\n".join((outcome.value or ["", "", ""])[1:]).strip()
                bad += [f"smalti {line}: {'; '.join(found) or 'as it should'}\n{said[-700:]}"]
        os.chdir("/")
    if not count:
        sys.exit(f"no call has {only!r} in it")
    failed = [entry for entry in bad if "as it should" not in entry.splitlines()[0]]
    print("\n\n".join(bad))
    print(f"{count} wrong calls: {count - len(failed)} with exit code 2, one message, nothing changed; ", end="")
    print(f"slowest {slowest:.1f} s; {len(failed)} to look at")
    return 1 if failed else 0


def _words(line: str) -> list[str]:
    import shlex

    return shlex.split(line)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
