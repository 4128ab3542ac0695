// Light and dark: what was chosen on this page, else what the system prefers. Plots hear of it by "themechange".
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("smalti-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const tell = () => {
    document.querySelectorAll(".theme").forEach(button => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    });
    root.dispatchEvent(new CustomEvent("themechange", {detail: {dark: isDark()}}));
  };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  system.addEventListener("change", tell);
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".theme").forEach(button => button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("smalti-theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
      tell();
    }));
    tell();
    document.querySelectorAll("figure").forEach(slide);
  });

  // Two pictures on top of each other: the slider, or a finger on the picture, uncovers the lower one.
  function slide(figure) {
    const pair = figure.querySelector(".pair"), range = figure.querySelector("input.cut");
    if (!pair || !range) return;
    const cut = () => pair.style.setProperty("--cut", range.value + "%");
    range.addEventListener("input", cut);
    const follow = event => {
      const box = pair.getBoundingClientRect();
      range.value = Math.round(100 * (event.clientX - box.left) / box.width);
      cut();
    };
    pair.addEventListener("pointerdown", event => { pair.setPointerCapture(event.pointerId); follow(event); });
    pair.addEventListener("pointermove", event => { if (event.pressure || event.buttons) follow(event); });
  }
})();
