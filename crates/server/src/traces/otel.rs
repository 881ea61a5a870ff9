//! Spans, sent over OTLP/HTTP by the service's own runtime and client. They gather on a thread of the SDK, which throws
//! some away rather than hold up a request; what cannot be sent is logged.

use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the end waits for the last spans to be sent.
const END_WAIT: Duration = Duration::from_secs(5);
/// How long a connection to the collector may take, and an exchange with it.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

/// Where traces go. What is left out is as the variables of the standard say (`OTEL_…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// The collector's address for traces, as `http://localhost:4318/v1/traces`.
    pub endpoint: Option<String>,
    /// What this service is called.
    pub service_name: Option<String>,
}

impl TraceOptions {
    /// As the environment says; `None` if it names no collector, or switches the SDK off.
    pub fn from_env() -> Option<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().find_map(set);
        if is_off || named.is_none() {
            return None;
        }
        let is_named = set("OTEL_SERVICE_NAME").is_some()
            || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
        Some(Self { endpoint: None, service_name: (!is_named).then(|| "bursar".to_owned()) })
    }
}

/// Why traces cannot be sent.
#[derive(Debug)]
pub enum TraceError {
    /// The client cannot be made.
    Client(reqwest::Error),
    /// The exporter cannot be made: its address is none, say.
    Exporter(ExporterBuildError),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => write!(f, "traces cannot be sent: {error}"),
            Self::Exporter(error) => write!(f, "traces cannot be sent: {error}"),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(error) => Some(error),
            Self::Exporter(error) => Some(error),
        }
    }
}

/// The service's client on the service's runtime: the SDK's thread has none.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

type Answer = Result<axum::http::Response<Bytes>, HttpError>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: axum::http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let http = self.http.clone();
        let exchange = self.runtime.spawn(async move { http.send_bytes(request).await });
        Box::pin(async { exchange.await? })
    }
}

/// Traces, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Option<Sent>);

#[derive(Clone, Debug)]
struct Sent {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Begins to send what is traced.
pub(crate) fn start(options: &TraceOptions, runtime: &Handle) -> Result<Traces, TraceError> {
    // An error says that the process has its provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_WAIT)
        .timeout(EXCHANGE_WAIT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(TraceError::Client)?;
    let builder = SpanExporter::builder().with_http().with_http_client(Client { http, runtime: runtime.clone() });
    let builder = match &options.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let exporter = builder.build().map_err(TraceError::Exporter)?;
    let resource = Resource::builder();
    let resource = match &options.service_name {
        Some(name) => resource.with_service_name(name.clone()),
        None => resource,
    };
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = resource.with_attribute(version).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer_with_scope(InstrumentationScope::builder("bursar").build());
    Ok(Traces(Some(Sent { provider, tracer })))
}

impl Traces {
    /// Begins the span of a request; a part of its caller's trace, if its header says which that is.
    pub(crate) fn request(&self, path: &'static str, request: &Request, id: &str) -> Span {
        let Some(Sent { tracer, .. }) = &self.0 else { return Span(None) };
        let caller =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        let method = request.method().as_str();
        let builder = tracer.span_builder(format!("{method} {path}")).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", path),
            KeyValue::new("bursar.request_id", id.to_owned()),
        ]);
        Span(Some(caller.with_span(tracer.build_with_context(builder, &caller))))
    }

    /// Begins the span of a commit: until it is known what became of a request, and durable. A part of the request's.
    pub(crate) fn commit(&self) -> Span {
        let Some(Sent { tracer, .. }) = &self.0 else { return Span(None) };
        let request = Context::current();
        let span = tracer.build_with_context(tracer.span_builder("commit").with_kind(SpanKind::Internal), &request);
        Span(Some(request.with_span(span)))
    }

    /// Sends what is left.
    pub(crate) fn end(&self) {
        let Some(Sent { provider, .. }) = &self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(END_WAIT) {
            tracing::warn!("the last traces could not be sent: {error}");
        }
    }
}

/// A span, ended when it is dropped.
pub(crate) struct Span(Option<Context>);

impl Span {
    /// What happens meanwhile is a part of it.
    pub(crate) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.with_context(self.0.clone().unwrap_or_default())
    }

    /// Ends the span of a request.
    pub(crate) fn answered(self, status: StatusCode, code: Option<&'static str>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if let Some(code) = code {
            span.set_attribute(KeyValue::new("error.type", code));
        }
        if status.is_server_error() {
            span.set_status(Status::error(code.unwrap_or("")));
        }
        span.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            // A second end changes nothing.
            context.span().end();
        }
    }
}
