// What pages gain with JavaScript. Every page works without this file: forms
// are forms, links are links, and charts were drawn on the server.
(() => {
  "use strict";

  // Moments "3 min ago" stay true while a page is open.
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const ago = (t) => {
    const s = Math.round((Date.now() - t) / 1000);
    if (Math.abs(s) < 2) return "now";
    const [size, unit] = units.find(([n]) => Math.abs(s) >= n);
    const n = Math.floor(Math.abs(s) / size);
    return s < 0 ? `in ${n} ${unit}` : `${n} ${unit} ago`;
  };
  const tellTimes = () => {
    for (const e of document.querySelectorAll("time[data-ago]")) {
      const words = ago(Date.parse(e.dateTime));
      if (e.textContent !== words) e.textContent = words;
    }
  };
  setInterval(tellTimes, 1000);

  // Decisions ask in place: the same page, the same form, in a dialog.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-dialog]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      try {
        const answer = await fetch(link.href, { credentials: "same-origin" });
        const form = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("form.confirm");
        if (!answer.ok || !form) throw new Error("no form");
        const dialog = document.createElement("dialog");
        dialog.append(document.importNode(form, true));
        dialog.addEventListener("close", () => dialog.remove());
        document.body.append(dialog);
        dialog.showModal();
        dialog.querySelector("button.primary").focus();
      } catch {
        location.assign(link.href);
      }
      return;
    }
    const cancel = event.target.closest("dialog [data-cancel]");
    if (cancel) {
      event.preventDefault();
      cancel.closest("dialog").close();
    }
  });

  // Addresses of filtered lists name only what was asked for.
  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.verb !== "get") return;
    for (const [name, value] of Object.entries(detail.parameters)) if (value === "") delete detail.parameters[name];
  });

  // "/" goes to the page's search field.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const field = document.querySelector(`[data-hotkey="${CSS.escape(event.key)}"]`);
    if (field) {
      event.preventDefault();
      field.focus();
    }
  });

  // Live charts: uPlot over the series the server drew.
  const plots = new WeakMap();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const tones = { accent: "accent-fill", ink: "ink", bad: "bad-fill", warn: "warn-fill", muted: "idle-fill" };
  const short = (v) => v == null ? "" : v >= 1e6 ? v.toExponential(1) : v >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(3));

  const decades = (lo, hi) => {
    const all = [];
    for (let e = Math.ceil(Math.log10(lo) - 1e-9); e <= Math.log10(hi) + 1e-9; e++) all.push(10 ** e);
    return all;
  };

  const annotate = (read) => ({
    hooks: {
      draw: [(u) => {
        const { ctx } = u, { left, top, width, height } = u.bbox, ratio = devicePixelRatio || 1, s = read();
        ctx.save();
        ctx.lineWidth = ratio;
        ctx.font = `500 ${10.5 * ratio}px "Instrument Sans Variable", system-ui, sans-serif`;
        const ends = []; // of the labels, by row: one that would run into another stands below it
        for (const m of s.marks) {
          const x = Math.round(u.valToPos(m.at, "x", true));
          if (x < left || x > left + width) continue;
          ctx.strokeStyle = colour(tones[m.tone]);
          ctx.globalAlpha = m.tone === "bad" ? .55 : 1;
          ctx.setLineDash(m.tone === "bad" ? [] : [ratio, 3 * ratio]);
          ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
          ctx.globalAlpha = 1;
          if (!m.label) continue;
          let row = 0;
          while (ends[row] > x) row++;
          ends[row] = x + ctx.measureText(m.label).width + 8 * ratio;
          ctx.fillStyle = colour("ink-3");
          ctx.textAlign = "left";
          ctx.fillText(m.label, x + 4 * ratio, top + (10 + 13 * row) * ratio);
        }
        for (const l of s.limits) {
          const y = Math.round(u.valToPos(l.value, "y", true));
          if (y < top - 1 || y > top + height) continue;
          ctx.strokeStyle = colour(tones[l.tone]);
          ctx.setLineDash(l.tone === "bad" ? [] : l.tone === "warn" ? [5 * ratio, 3 * ratio] : [2 * ratio, 3 * ratio]);
          ctx.beginPath(); ctx.moveTo(left, y); ctx.lineTo(left + width, y); ctx.stroke();
          ctx.fillStyle = colour(l.tone === "muted" ? "ink-3" : l.tone);
          ctx.textAlign = "right";
          ctx.fillText(l.label, left + width - 4 * ratio, y - 6 * ratio);
        }
        ctx.restore();
      }],
    },
  });

  const drawChart = (figure) => {
    const series = JSON.parse(figure.dataset.chart || "null");
    if (!series || series.x.length < 2) return;
    const known = plots.get(figure);
    if (known) {
      known.series = series;
      known.plot.setData([series.x, series.y]);
      return;
    }
    const state = { series, plot: null };
    const svg = figure.querySelector("svg");
    const width = figure.clientWidth, height = Math.max(170, Math.round(width * .36));
    const stroke = colour(tones[series.tone]);
    const axis = { stroke: () => colour("ink-3"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: '11px "Instrument Sans Variable", system-ui, sans-serif' };
    svg?.remove();
    state.plot = new uPlot({
      width, height, plugins: [annotate(() => state.series)], cursor: { y: false, points: { size: 7 } },
      scales: { x: { time: true }, y: { distr: series.log ? 3 : 1, range: () => [state.series.min, state.series.max] } },
      legend: { live: true },
      series: [
        { value: (_, v) => v == null ? "–" : new Date(v * 1000).toISOString().slice(11, 19) },
        { label: series.unit, stroke, width: 2, fill: stroke + (series.tone === "ink" ? "0d" : "21"), fillTo: series.min, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, v) => v == null ? "–" : short(v) },
      ],
      axes: [{ ...axis, size: 26, space: 70, values: (_, ts) => ts.map((t) => new Date(t * 1000).toISOString().slice(11, ts.length > 1 && ts[1] - ts[0] < 60 ? 19 : 16)) },
        { ...axis, size: 46, values: (_, vs) => vs.map((v) => v == null ? "" : short(v)), ...(series.log ? { splits: (_, __, lo, hi) => decades(lo, hi) } : {}) }],
    }, [series.x, series.y], figure);
    figure.setAttribute("role", "img");
    if (svg) figure.setAttribute("aria-label", svg.getAttribute("aria-label"));
    plots.set(figure, state);
  };
  const drawAll = () => {
    if (!window.uPlot) return;
    for (const f of document.querySelectorAll("figure[data-chart]")) {
      try { drawChart(f); } catch { /* the server's drawing stays */ }
    }
  };
  const redrawAll = () => {
    for (const f of document.querySelectorAll("figure[data-chart]")) {
      const s = plots.get(f);
      if (!s) continue;
      s.plot.destroy();
      plots.delete(f);
    }
    drawAll();
  };
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redrawAll, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

  // While a page is morphed, a live chart keeps its canvas and takes the new
  // series; an open part of the record stays open.
  if (window.Idiomorph) {
    Idiomorph.defaults.callbacks.beforeNodeMorphed = (before, after) => {
      if (before.nodeType !== 1 || after.nodeType !== 1) return true;
      if (plots.has(before) && after.dataset?.chart) {
        before.dataset.chart = after.dataset.chart;
        drawChart(before);
        return false;
      }
      if (before.tagName === "DETAILS" && before.open) after.setAttribute("open", "");
      return true;
    };
  }
  document.addEventListener("htmx:afterSettle", () => { drawAll(); tellTimes(); });
  // A canvas does not wait for a typeface as a page does.
  drawAll();
  document.fonts?.ready.then(redrawAll);
  document.documentElement.classList.add("live");
})();
