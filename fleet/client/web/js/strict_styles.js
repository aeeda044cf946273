// xterm.js writes its styles into <style> elements and style attributes, which this origin's content
// security policy refuses, as it refuses everything inline. The same styles are let in by the ways
// that the policy leaves to code: constructed style sheets, and an element's own style object.

/** To be called once, before xterm.js makes anything. */
export function allowStylesFromCode() {
  const { setAttribute } = Element.prototype;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  const { createElement } = Document.prototype;
  Document.prototype.createElement = function (name, options) {
    const isStyle = name.toLowerCase() === "style";
    return isStyle ? standIn(createElement.call(this, "template")) : createElement.call(this, name, options);
  };
}

/** An element that does nothing, whose text is the text of a style sheet of the document. */
function standIn(element) {
  const sheet = new CSSStyleSheet();
  const others = () => document.adoptedStyleSheets.filter((it) => it !== sheet);
  Object.defineProperty(element, "textContent", {
    get: () => [...sheet.cssRules].map((rule) => rule.cssText).join("\n"),
    set: (text) => {
      sheet.replaceSync(text);
      document.adoptedStyleSheets = [...others(), sheet];
    },
  });
  const { remove } = element;
  element.remove = () => {
    document.adoptedStyleSheets = others();
    remove.call(element);
  };
  return element;
}
