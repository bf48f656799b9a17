// A press on [data-jump] moves the player of the Ask tab; one on [data-press] presses the button of that name.
document.addEventListener("click", event => {
  const place = event.target.closest?.("[data-jump]");
  const player = document.getElementById("player");
  if (place && player) {
    player.pause();
    player.currentTime = Number(place.dataset.jump) + 0.001;
    player.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
  const name = event.target.closest?.("[data-press]")?.dataset.press;
  if (name) document.querySelector(`button#${name}, #${name} button`)?.click();
});

// Films stand still for readers who want no motion; films beside each other run together.
new MutationObserver(changes => {
  const films = changes.flatMap(change => [...change.addedNodes])
    .flatMap(node => node.matches?.("video") ? [node] : [...(node.querySelectorAll?.("video") ?? [])]);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches)
    films.forEach(film => { film.autoplay = false; film.controls = true; film.pause(); });
  else
    films.filter(film => film.closest(".together")).forEach(film => { film.currentTime = 0; });
}).observe(document, { childList: true, subtree: true });
