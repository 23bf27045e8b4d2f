// Stands in for modules of Node that an engine names and does not use in a browser.
export default {};
