// The row of samples: a click takes one. The one that is looked at is marked: the first when the
// page opens, none once somebody gives a picture of their own or takes the picture away.
const mark = (chosen) => {
  for (const sample of element.querySelectorAll('.sample'))
    sample.setAttribute('aria-pressed', String(sample === chosen));
};
mark(element.querySelector('.sample'));
element.addEventListener('click', (event) => {
  const sample = event.target.closest('.sample');
  if (!sample) return;
  mark(sample);
  // Two clicks may arrive in another order than they were made.
  trigger('click', {index: Number(sample.dataset.index), at: performance.now()});
});
const BUTTONS = ['Remove Image', 'Capture from camera', 'Paste from clipboard'];
const isOwn = {
  change: (event) => event.target.closest?.('#inspect-picture'),
  drop: (event) => event.target.closest?.('#inspect-picture'),
  paste: (event) => event.clipboardData?.files.length && element.offsetParent,
  click: (event) =>
    BUTTONS.includes(event.target.closest?.('#inspect-picture button')?.ariaLabel),
};
for (const [kind, is] of Object.entries(isOwn))
  document.addEventListener(kind, (event) => is(event) && mark(null), true);
