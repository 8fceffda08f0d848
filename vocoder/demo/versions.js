// Plays one of several versions of the same audio. Choosing another while it plays goes on there,
// at the same position.
let chosen = 0;

function choose(index) {
  const audios = [...element.querySelectorAll("audio")];
  const before = audios[chosen], next = audios[index] ?? audios[0];
  chosen = audios.indexOf(next);
  audios.forEach((audio, i) => {
    audio.hidden = i !== chosen;
    element.querySelectorAll("input")[i].checked = i === chosen;
  });
  if (!before || before === next) return;
  const playing = !before.paused;
  before.pause();
  next.volume = before.volume;
  next.muted = before.muted;
  next.currentTime = before.ended ? 0 : before.currentTime;
  if (playing) next.play();
}

element.addEventListener("change", (event) => choose(Number(event.target.value)));
watch("value", () => element.querySelector("audio") && choose(chosen));
