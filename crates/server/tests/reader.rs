//! The page for people: whole by itself, and allowed to do nothing but show the document.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::TestServer;
use sha2::{Digest, Sha256};

#[test]
fn the_page_holds_all_it_needs_and_its_policy_allows_nothing_else() {
    let (server, _) = TestServer::with_keys();
    let page = server.get("/docs");
    assert_eq!((page.status, &*page.headers["content-type"]), (200, "text/html; charset=utf-8"));
    let text = page.text();
    let policy = &page.headers["content-security-policy"];
    for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
        let parts: Vec<&str> = text.split(&format!("<{tag}>")).collect();
        assert_eq!(parts.len(), 2, "one {tag}");
        let content = parts[1].split(&format!("</{tag}>")).next().unwrap();
        assert!(content.len() > 500);
        let hash = STANDARD.encode(Sha256::digest(content.as_bytes()));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{policy}");
    }
    assert!(policy.starts_with("default-src 'none';") && policy.contains("connect-src 'self'"));
    for never in ["unsafe", "*", "http:", "https:"] {
        assert!(!policy.contains(never), "{policy}");
    }
    // Nothing is fetched from elsewhere, and no text becomes markup.
    for never in
        ["http://", "https://", "src=", "onclick", "onload", "innerHTML", "outerHTML", "document.write", "eval("]
    {
        assert!(!text.contains(never), "{never}");
    }
    for needed in [
        "<html lang=\"en\">",
        "<main id=\"main\"",
        "<nav aria-label=",
        "<label for=\"filter\">",
        "prefers-color-scheme",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
}
