// The review queue: a click or an arrow key chooses an image. A list that is renewed under the
// reader's hands keeps the choice and the place it was scrolled to; focus.js keeps the focus.
// The memory is the window's: the page may also put a new element in the place of this one.
const memory = (window.reviewQueue ??= {chosen: null, top: 0});
const entries = () => [...element.querySelectorAll('.entry')];
const mark = () => {
  for (const entry of entries())
    entry.setAttribute('aria-pressed', String(entry.dataset.id === memory.chosen));
};
const choose = (entry) => {
  if (entry.dataset.id === memory.chosen) return;
  memory.chosen = entry.dataset.id;
  mark();
  trigger('select', {id: memory.chosen});
};
element.addEventListener('click', (event) => {
  const entry = event.target.closest('.entry');
  if (entry) choose(entry);
  if (event.target.closest('[data-more]')) trigger('input');
  const go = event.target.closest('[data-tab]');
  if (go)
    [...document.querySelectorAll('[role=tab]')]
      .find((tab) => tab.textContent.trim() === go.dataset.tab)
      ?.click();
});
element.addEventListener('keydown', (event) => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  const all = entries();
  const next = all[all.indexOf(event.target.closest('.entry')) + step];
  if (!step || !event.target.matches('.entry')) return;
  event.preventDefault();
  if (!next) return;
  next.focus();
  choose(next);
});
element.addEventListener('scroll', (event) => {
  if (event.target.matches('.queue')) memory.top = event.target.scrollTop;
}, true);
const restore = () => {
  const list = element.querySelector('.queue');
  if (!list) return;
  if (!entries().some((entry) => entry.dataset.id === memory.chosen)) {
    const pressed = element.querySelector('.entry[aria-pressed=true]');
    memory.chosen = pressed?.dataset.id ?? memory.chosen;
  }
  mark();
  list.scrollTop = memory.top;
};
new MutationObserver(restore).observe(element, {childList: true, subtree: true});
restore();
const words = (seconds) => {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return 'under 1 min';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / 1440)} days`;
};
const freshen = () => {
  for (const time of document.querySelectorAll('time[data-age]')) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    const text = words(Math.max(seconds, 0)) + time.dataset.age;
    if (time.textContent !== text) time.textContent = text;
  }
};
if (!memory.watches) {
  memory.watches = true;
  setInterval(freshen, 15000);
}
