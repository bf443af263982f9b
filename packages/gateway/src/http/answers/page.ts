const style = `:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1c2430;--soft:#5a6675;--line:#e1e5ea;--accent:#3b6ef5}
@media(prefers-color-scheme:dark){:root{--back:#12161c;--card:#1a2029;--text:#e8ecf1;--soft:#98a4b3;--line:#2a323d;--accent:#7aa0ff}}
*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{width:100%;max-width:30rem;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:12px}
h1{margin:0 0 .5rem;font-size:1.25rem;font-weight:600}p{margin:0;color:var(--soft);overflow-wrap:anywhere}
.spin{width:1.75rem;height:1.75rem;margin-bottom:1rem;border:3px solid var(--line);border-top-color:var(--accent);border-radius:50%;animation:turn 1s linear infinite}
@keyframes turn{to{transform:rotate(360deg)}}@media(prefers-reduced-motion:reduce){.spin{animation-duration:6s}}
label{display:block;margin:1.25rem 0 .35rem;font-weight:500}input{width:100%;padding:.6rem .75rem;font:inherit;color:inherit;background:var(--back);border:1px solid var(--line);border-radius:8px}
button{margin-top:1rem;padding:.6rem 1.1rem;font:inherit;font-weight:500;color:#fff;background:#3b6ef5;border:0;border-radius:8px;cursor:pointer}
input:focus-visible,button:focus-visible{outline:3px solid var(--accent);outline-offset:2px}.wrong{margin-top:.75rem;color:#d3413b}`

function page(title: string, content: string, head = ''): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">${head}
<title>${escapeHtml(title)}</title><style>${style}</style></head>
<body><main>${content}</main></body></html>
`
}

/** Asks again by itself every two seconds. */
export function waitingPage(title: string, words: string): string {
  const content = `<div role="status" aria-live="polite" aria-busy="true"><div class="spin" aria-hidden="true"></div><h1>${escapeHtml(title)}</h1><p>${escapeHtml(words)}</p></div>`
  return page(title, content, '<meta http-equiv="refresh" content="2">')
}

export function errorPage(title: string, words: string): string {
  return page(title, `<div role="alert"><h1>${escapeHtml(title)}</h1><p>${escapeHtml(words)}</p></div>`)
}

/** Posts the token to `action`, and where to go from there. */
export function loginPage(action: string, returnTo: string, wrong: boolean): string {
  const fault = wrong ? '<p class="wrong" role="alert" id="fault">That token does not open this page.</p>' : ''
  const described = wrong ? ' aria-describedby="fault" aria-invalid="true"' : ''
  return page(
    'This page is private',
    `<h1>This page is private</h1><p>Enter an API token of the account it belongs to.</p>
<form method="post" action="${escapeHtml(action)}"><input type="hidden" name="return" value="${escapeHtml(returnTo)}">
<label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password" required autofocus${described}>${fault}<button>Open</button></form>`,
  )
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
