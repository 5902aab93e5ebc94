import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";

// The console was upgraded under this page: the part it asks for has another name now. Begin again, once.
addEventListener("vite:preloadError", (event) => {
  if ((history.state as { begun_again?: boolean } | null)?.begun_again) return;
  event.preventDefault();
  history.replaceState({ begun_again: true }, "");
  location.reload();
});

mount(App, { target: document.getElementById("app") as HTMLElement });
