// Runs before the first paint, so a chosen theme never flashes the other one.
(function () {
  try {
    var theme = localStorage.getItem("theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch (refused) {
    // Storage is switched off: the system's theme applies.
  }
})();
