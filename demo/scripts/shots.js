// A gallery: a click chooses a picture, arrows step through it and choose.
// `element` and `trigger` come from the page.
const choose = (shot) => {
  for (const other of element.querySelectorAll('.shot'))
    other.setAttribute('aria-pressed', String(other === shot));
  trigger('click', {index: Number(shot.dataset.index)});
  const large = document.querySelector('#batch-large');
  const isBelow = large && large.getBoundingClientRect().top >= element.getBoundingClientRect().bottom;
  if (isBelow) large.scrollIntoView({behavior: 'smooth', block: 'start'}); // a narrow screen
};
element.addEventListener('click', (event) => {
  const shot = event.target.closest('.shot');
  if (shot) choose(shot);
});
element.addEventListener('keydown', (event) => {
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!step || !event.target.matches('.shot')) return;
  const shots = [...element.querySelectorAll('.shot')];
  const next = shots[shots.indexOf(event.target) + step];
  if (next) {
    next.focus();
    choose(next);
  }
  event.preventDefault();
});
