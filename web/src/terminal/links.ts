// Which links of a host's output may be opened, and what somebody has to see before one is. Pure.

export interface Link {
  url: string;
  /** Where it really leads: letters that look like others are written out. */
  host: string;
  before: string;
  after: string;
}

const LONGEST = 2_048;

/** The link's parts, or null for what is not a web address. */
export function link(text: string): Link | null {
  if (text.length > LONGEST || !/^https?:\/\//i.test(text)) return null;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  // `https://bank.example@evil.example/` leads to evil.example.
  if (url.username || url.password || !url.host) return null;
  const [before, after] = split(url);
  return { url: url.href, host: url.host, before, after };
}

function split(url: URL): [string, string] {
  const at = url.href.indexOf(url.host);
  return [url.href.slice(0, at), url.href.slice(at + url.host.length)];
}

/** Opens it in a tab that knows nothing of this one. */
export function follow(target: Link): void {
  window.open(target.url, "_blank", "noopener,noreferrer");
}
