// `tree` builds each fragment element by element, so the page never assigns innerHTML and the
// Content-Security-Policy can require Trusted Types without a policy of ours.
export default {
  compilerOptions: { runes: true, fragments: "tree" },
};
