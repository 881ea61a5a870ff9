//! The `OpenAPI` document, made from the handlers and the types that they answer with.
//!
//! It is checked in as `docs/openapi.json`; a test compares the two, so that no change of the interface goes unseen.

use crate::api::{
    batches, chain, customers, disputes, events, ledger, operations, outcomes, pending, problems, reader, requests,
    stream, transactions, webhooks,
};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bursar",
        description = "A payment engine: one immutable chain of events per customer.\n\n\
            Amounts and ids are strings. Whatever is not a success is a problem document (RFC 9457) with a stable \
            `code`. A request that the rules refuse is 422; what says nothing that could be decided is 400; what was \
            not decided for want of room is 503 with `Retry-After`. An answer is sent only after what it says is durable.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        requests::submit,
        batches::submit,
        customers::list,
        customers::one,
        events::list,
        disputes::of_customer,
        disputes::of_all,
        stream::follow,
        chain::download,
        transactions::one,
        ledger::info,
        pending::list,
        pending::settle,
        webhooks::list,
        webhooks::deliveries,
        webhooks::pause,
        webhooks::resume,
        webhooks::resend,
        operations::metrics,
        operations::live,
        operations::ready,
        operations::openapi,
        reader::page,
        problems::list,
        problems::one,
    ),
    components(schemas(outcomes::RowBody<'static>, outcomes::EndBody, batches::OutcomesName, events::Order, stream::MessageBody<'static>,
        crate::webhooks::Message<'static>)),
    modifiers(&Bearer),
    security(("key" = [])),
    tags(
        (name = "requests", description = "Moving money"),
        (name = "customers", description = "Accounts and chains"),
        (name = "transactions", description = "What became of a deposit or withdrawal"),
        (name = "events", description = "Following the ledger"),
        (name = "webhooks", description = "Events, posted to where the operator's file says"),
        (name = "ledger", description = "The ledger as a whole"),
        (name = "operations", description = "Running the service"),
        (name = "problems", description = "What codes mean"),
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", scheme);
    }
}

/// The document, as it is checked in and served.
fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document as text.
pub fn text() -> String {
    // What is made of constants can be written, or no test would pass.
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
