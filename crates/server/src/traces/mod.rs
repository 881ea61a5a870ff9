//! A span of each request, and of its commit, for a collector of OpenTelemetry. Without the feature `otel`, and without a
//! collector, nothing.
//!
//! A span has the path's pattern and the request's id, and never what is in them: no customer, no amount, no key.
//!
//! What this module does not do: metrics and logs, which have ways of their own (`metrics`, `logging`).

#[cfg(feature = "otel")]
mod otel;
#[cfg(feature = "otel")]
pub use otel::{TraceError, TraceOptions};
#[cfg(feature = "otel")]
pub(crate) use otel::{Traces, start};

#[cfg(not(feature = "otel"))]
pub(crate) use none::Traces;

#[cfg(not(feature = "otel"))]
mod none {
    use axum::extract::Request;
    use axum::http::StatusCode;

    /// No traces.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Traces {}

    /// No span.
    pub(crate) struct Span;

    #[allow(clippy::unused_self)] // as where there are some
    impl Traces {
        pub(crate) const fn request(&self, _: &'static str, _: &Request, _: &str) -> Span {
            Span
        }

        pub(crate) const fn commit(&self) -> Span {
            Span
        }

        pub(crate) fn end(self) {}
    }

    #[allow(clippy::unused_self)] // as where there are some
    impl Span {
        pub(crate) fn around<F>(&self, work: F) -> F {
            work
        }

        pub(crate) const fn answered(self, _: StatusCode, _: Option<&'static str>) {}
    }
}
