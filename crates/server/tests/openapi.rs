//! The document is what is checked in, and what is served; and every path in it is there.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use common::TestServer;
use serde_json::Value;
use std::path::Path;

/// `BURSAR_ACCEPT=1 cargo test -p bursar-server --test openapi` writes the document anew.
#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let made = bursar_server::openapi_text();
    if std::env::var_os("BURSAR_ACCEPT").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let difference = kept.lines().zip(made.lines()).enumerate().find(|(_, (kept, made))| kept != made);
    assert_eq!(
        difference, None,
        "docs/openapi.json differs; if that is meant to be: BURSAR_ACCEPT=1 cargo test -p bursar-server --test openapi"
    );
    assert!(kept == made, "docs/openapi.json has another length");
    assert_eq!(TestServer::new().get("/openapi.json").text(), made);
}

#[test]
fn every_path_of_the_document_is_there_and_the_other_way_round() {
    let server = TestServer::new();
    let document: Value = serde_json::from_str(&bursar_server::openapi_text()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let real = path.replace("{customer}", "1").replace("{transaction}", "1").replace("{code}", "busy");
            // A stream has no end by itself.
            let real = if real == "/v1/events" { "/v1/events?follow=false".to_owned() } else { real };
            let mut client = server.client();
            let response = client.call(&method.to_uppercase(), &real, "", b"");
            let code = if response.status < 400 { String::new() } else { response.problem().1 };
            assert!(!["no_such_path", "method_not_allowed"].contains(&code.as_str()), "{method} {path}: {code}");
        }
    }
    // The metrics name every path that the service has.
    let metrics = server.get("/metrics").text().to_owned();
    let mut served: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("bursar_http_request_seconds_count{path=\"")?.split('"').next())
        .filter(|path| !["/", "other"].contains(path))
        .collect();
    served.sort_unstable();
    assert_eq!(served, paths.keys().map(String::as_str).collect::<Vec<_>>());
}

/// A code that a document can have is explained, with the status that it had.
#[test]
fn every_code_is_explained() {
    let server = TestServer::new();
    let list = server.get("/problems").json();
    let items = list["items"].as_array().unwrap();
    assert!(items.len() > 50);
    for item in items {
        let one = server.get(&format!("/problems/{}", item["code"].as_str().unwrap())).json();
        assert_eq!(&one, item);
        let statuses = one["statuses"].as_array().unwrap();
        assert!(statuses.iter().all(|status| (400..600).contains(&status.as_u64().unwrap())), "{one}");
        for field in ["title", "hint"] {
            assert!(one[field].as_str().unwrap().ends_with('.'), "{one}");
        }
    }
    // A refusal of money is never a fault of the service, nor is want of room ever a refusal.
    for rejection in &bursar_core::Rejection::ALL {
        let found = items.iter().find(|item| item["code"] == rejection.code).unwrap();
        let statuses = found["statuses"].as_array().unwrap();
        assert!(statuses.iter().all(|status| [400, 404, 409, 422].contains(&status.as_u64().unwrap())), "{found}");
    }
}
