// The page is in English. Gradio names the browser's language instead, whose words it takes for its
// own few controls: a screen reader would read English as German, and no browser offer to translate.
(() => {
  const page = document.documentElement;
  const say = () => {
    if (page.lang !== "en") page.lang = "en";
  };
  new MutationObserver(say).observe(page, {attributeFilter: ["lang"]});
  say();
})();
