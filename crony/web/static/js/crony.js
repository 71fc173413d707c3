// The console's behaviour beyond htmx: relative times, menus, confirmation, copying, live polling, following output.
// Every page works without it; nothing here builds HTML from text.

const words = JSON.parse(document.body.dataset.words || "{}");
const skew = Number(document.body.dataset.now || 0) * 1000 - Date.now();

// -- relative times: "in 2 m" must not go stale on an open page ---------------------------------
function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  for (const [size, unit, small, smaller] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / small);
      const main = `${Math.floor(whole / size)} ${words[unit]}`;
      return rest ? `${main} ${rest} ${words[smaller]}` : main;
    }
  }
  return `${whole} ${words.s}`;
}
function refreshTimes() {
  const now = (Date.now() + skew) / 1000;
  for (const element of document.querySelectorAll("time[data-at]")) {
    let gap = Number(element.dataset.at) - now;
    if (gap < 0 && "due" in element.dataset) gap = 0; // a fire that is just being decided, not one of the past
    const text = Math.abs(gap) < 1 ? words.now : (gap > 0 ? words.in : words.ago).replace("{}", duration(Math.abs(gap)));
    if (element.textContent !== text) element.textContent = text;
  }
}
setInterval(() => { if (!document.hidden) refreshTimes(); }, 1000);

// -- on a phone the links of the head scroll: the page's own is in sight -------------------------
const links = document.querySelector(".crony-links");
const own = links?.querySelector("[aria-current]");
if (own) links.scrollLeft += Math.max(0, own.getBoundingClientRect().right - links.getBoundingClientRect().right + 24);

// -- menus close on Escape and on a click elsewhere ---------------------------------------------
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.crony-menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.crony-menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  }
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.isComposing
      && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName || "")) {
    const field = document.querySelector("[data-search]");
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  }
});

// -- "my zone" sends the browser's zone ----------------------------------------------------------
for (const button of document.querySelectorAll("[data-my-zone]")) {
  button.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

// -- forms: ask before dangerous things, and send once -------------------------------------------
const dialog = document.getElementById("confirm");
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !form.dataset.confirmed && dialog?.showModal) {
    event.preventDefault();
    dialog.querySelector("#confirm-text").textContent = form.dataset.confirm;
    dialog.returnValue = "no";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "yes") { form.dataset.confirmed = "1"; form.requestSubmit(event.submitter); }
    }, { once: true });
    return;
  }
  if ("once" in form.dataset) {
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
    event.submitter?.setAttribute("aria-busy", "true");
    setTimeout(() => { delete form.dataset.sent; event.submitter?.removeAttribute("aria-busy"); }, 4000);
  }
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) { delete form.dataset.sent; delete form.dataset.confirmed; }
});

// -- copying ---------------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  try { await navigator.clipboard.writeText(button.dataset.copy); } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges(); getSelection().addRange(range);
    document.execCommand("copy");
  }
  const title = button.title;
  button.title = words.copied; button.setAttribute("aria-label", words.copied); button.classList.add("active");
  setTimeout(() => { button.title = title; button.setAttribute("aria-label", title); button.classList.remove("active"); }, 1500);
});

// -- selects and checkboxes of filters apply at once ------------------------------------------------
document.addEventListener("change", (event) => {
  if (event.target.closest?.("form[data-auto]")) event.target.form.requestSubmit();
});

// -- fields that belong to a choice: [data-show="name=value"] ------------------------------------------
function showChosen(scope) {
  for (const part of scope.querySelectorAll("[data-show]")) {
    const [name, values] = part.dataset.show.split("=");
    const form = part.closest("form");
    const chosen = form?.elements[name]?.value ?? "";
    part.hidden = !values.split("|").includes(chosen);
  }
}
showChosen(document);
document.addEventListener("change", (event) => { if (event.target.form) showChosen(event.target.form); });

// -- a choice beside a field adds what was chosen to its text: [data-append="field"] ----------------------
document.addEventListener("change", (event) => {
  const choice = event.target.closest?.("select[data-append]");
  if (!choice || !choice.value) return;
  const field = choice.form.elements[choice.dataset.append];
  const text = field.value.replace(/[\s,]+$/, "");
  const value = choice.dataset.append === "secrets" ? `${choice.value.replace(/[^A-Za-z0-9]+/g, "_").toUpperCase()}=${choice.value}` : choice.value;
  if (!text.split(/[\n,]\s*/).includes(value)) field.value = text ? text + choice.dataset.between + value : value;
  choice.value = "";
  field.dispatchEvent(new Event("input", { bubbles: true }));
});

// -- live polling: not in a hidden tab, not while paused, and a failed poll keeps what is shown ----------
let paused = false;
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-live]");
  if (!button) return;
  paused = !paused;
  button.setAttribute("aria-pressed", String(!paused));
  button.querySelector("[data-live-word]").textContent = paused ? button.dataset.paused : button.dataset.live;
});
document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail;
  if (ctx.sourceEvent?.type === "every" && (document.hidden || paused || document.querySelector("details.crony-menu[open]"))) event.preventDefault();
});
let missed = 0;
function offline(down) {
  missed = down ? missed + 1 : 0;
  let banner = document.getElementById("offline");
  if (missed >= 2 && !banner) {
    banner = document.createElement("div");
    banner.id = "offline"; banner.className = "alert alert-warning crony-alert"; banner.setAttribute("role", "status");
    banner.textContent = words.offline;
    document.getElementById("banners")?.append(banner);
  }
  if (!down) banner?.remove();
}
document.addEventListener("htmx:error", (event) => { if (event.detail?.ctx) offline(true); });
document.addEventListener("htmx:before:swap", (event) => {
  const status = event.detail.ctx?.response?.status || 0;
  offline(status >= 500);
  if (status >= 400 && event.detail.ctx.sourceEvent?.type === "every") event.preventDefault();
});

// -- output: follow the end until the reader scrolls up ---------------------------------------------------
let following = true;
const output = document.getElementById("output");
if (output) {
  output.scrollTop = output.scrollHeight;
  output.addEventListener("scroll", () => {
    following = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    document.getElementById("follow")?.toggleAttribute("hidden", following);
  }, { passive: true });
  document.getElementById("follow")?.addEventListener("click", () => { following = true; output.scrollTop = output.scrollHeight; });
}
document.addEventListener("htmx:after:swap", () => {
  refreshTimes();
  if (output && following) output.scrollTop = output.scrollHeight;
});
