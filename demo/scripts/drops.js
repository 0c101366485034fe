// A file that is no picture never reaches the component, which would take the picture on the page
// away and say so in words of its own. `element` is the place for ours, beside `#NAME-picture`.
const PICTURES = /\.(png|jpe?g|bmp|tiff?|webp)$/i;
const place = element.closest('[id$="-refused"]');
const picture = '#' + place.id.replace('-refused', '-picture');
const source = () => document.querySelector(picture + ' img')?.src;
let beside; // the picture that was on the page when a file was refused
const say = (name) => {
  element.replaceChildren();
  beside = source();
  if (!name) return;
  const told = document.createElement('p');
  told.className = 'refused';
  told.textContent = `${name} is no picture; PNG, JPEG, BMP, TIFF and WebP are read.`;
  if (/\.zip$/i.test(name)) told.textContent += ' Archives are for the Batch tab.';
  element.append(told);
};
element.setAttribute('aria-live', 'polite');
const isPicture = (file) => file.type.startsWith('image/') || PICTURES.test(file.name);
const check = (event, [file] = []) => {
  if (!event.target.closest?.(picture) || !file) return;
  if (isPicture(file)) return say('');
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === 'change') event.target.value = ''; // or the same file could not be chosen again
  say(file.name);
  // The component listens for the drag's end to let go of its highlight.
  if (event.type === 'drop') event.target.dispatchEvent(new DragEvent('dragleave', {bubbles: true}));
};
new MutationObserver(() => element.firstChild && source() !== beside && say(''))
  .observe(document.body, {subtree: true, childList: true, attributeFilter: ['src']});
window.addEventListener('drop', (event) => check(event, event.dataTransfer?.files ?? []), true);
window.addEventListener('change', (event) => check(event, event.target.files ?? []), true);
