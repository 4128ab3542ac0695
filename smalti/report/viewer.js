// Pictures of a run: originals and reconstructions on top of each other, over the course of training.
document.querySelectorAll(".viewer").forEach(viewer => {
  const {steps, images} = JSON.parse(viewer.querySelector("script").textContent);
  const made = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const last = steps[steps.length - 1], bar = made("div", {className: "bar"}), grid = made("div", {className: "grid"});
  viewer.append(bar, grid);

  if (last.pairs) {
    const modes = [["Slider", ""], ["Difference", "whole difference"], ["Original", "whole"], ["Reconstruction", "whole under"]];
    const choice = made("span", {className: "choice"});
    choice.setAttribute("role", "group");
    choice.setAttribute("aria-label", "What is shown");
    bar.append(choice);
    modes.forEach(([label, kind], number) => {
      const button = made("button", {type: "button", textContent: label, title: kind.includes("difference") ? "of the two, four times as bright" : ""});
      button.setAttribute("aria-pressed", number === 0);
      button.addEventListener("click", () => {
        choice.querySelectorAll("button").forEach(other => other.setAttribute("aria-pressed", other === button));
        grid.querySelectorAll(".pair").forEach(pair => {
          pair.className = `pair ${pair.dataset.finish} ${kind}`;
          pair.parentElement.classList.toggle("hide-cut", kind !== "");
        });
      });
      choice.append(button);
    });
  }

  const figures = (last.pairs || [[last.sheet]]).map((pair, number) => {
    const name = `${viewer.dataset.name}, ${number + 1}`;
    if (!last.pairs) {
      const figure = made("figure", {className: "sheet"}, made("img", {alt: `made by ${name}`, src: images[pair[0]]}));
      grid.append(figure);
      return figure;
    }
    const stack = made("div", {className: "stack"},
      made("img", {alt: `reconstruction, ${name}`, draggable: false, src: images[pair[1]]}),
      made("img", {alt: `original, ${name}`, draggable: false, src: images[pair[0]]}));
    const cut = made("input", {className: "cut", type: "range", min: 0, max: 100, value: 50});
    cut.setAttribute("aria-label", `${name}: original on the left, reconstruction on the right`);
    const figure = made("figure", {}, made("div", {className: "pair"}, stack), cut,
      made("div", {className: "sides"}, made("span", {textContent: "original"}), made("span", {textContent: "reconstruction"})));
    grid.append(figure);
    return figure;
  });
  if (steps.length > 1) {
    const range = made("input", {type: "range", min: 0, max: steps.length - 1, value: steps.length - 1});
    range.setAttribute("aria-label", "Course of training");
    const output = made("output");
    bar.append(made("label", {className: "course"}, range, output));
    const show = () => {
      const step = steps[range.value];
      output.textContent = `after ${step.label} updates`;
      figures.forEach((figure, number) => {
        const pair = step.pairs ? step.pairs[number] : number === 0 && "sheet" in step ? [step.sheet] : undefined;
        figure.hidden = !pair || Boolean(step.pairs) !== Boolean(last.pairs);
        if (figure.hidden) return;
        const [top, ...below] = [...figure.querySelectorAll("img")].reverse();
        top.src = images[pair[0]];
        if (below.length) below[0].src = images[pair[1]];
      });
    };
    range.addEventListener("input", show);
    show();
  }

  const first = figures[0].querySelector("img");
  const fit = () => {
    const small = first.naturalWidth < 160;
    grid.style.setProperty("--cell", figures.length > 1 ? `${Math.min(Math.max(first.naturalWidth, 190), 300)}px` : "100%");
    if (figures.length === 1 && last.pairs) figures[0].style.maxWidth = `${Math.min(Math.max(2 * first.naturalWidth, 320), 736)}px`;
    if (!last.pairs) figures[0].style.maxWidth = `${Math.max(first.naturalWidth, Math.min(2 * first.naturalWidth, 640))}px`;
    grid.querySelectorAll(".pair").forEach(pair => {
      pair.dataset.finish = small ? "" : "smooth";
      pair.classList.toggle("smooth", !small);
    });
  };
  first.complete && first.naturalWidth ? fit() : first.addEventListener("load", fit, {once: true});
});

// The recipe: names in another colour, and a button that copies it.
document.querySelectorAll(".recipe").forEach(box => {
  const pre = box.querySelector("pre"), text = pre.textContent, button = box.querySelector(".copy");
  pre.replaceChildren(...text.split("\n").flatMap((line, number) => {
    const found = line.match(/^(\s*(?:- )*)([^\s:#][^:]*)(:(?:\s.*)?)$/);
    const end = number ? "\n" : "";
    if (!found) return [end + line];
    const key = document.createElement("span");
    key.className = "key";
    key.textContent = found[2];
    return [end + found[1], key, found[3]];
  }));
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", () => navigator.clipboard.writeText(text).then(() => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }, () => { button.hidden = true; }));
});
