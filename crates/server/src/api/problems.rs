//! `GET /problems`: what each code means, and what to do. The `type` of a problem document leads here.

use crate::api::Json;
use crate::problem::{Problem, ProblemDocument, ProblemInfo, ServiceProblem, all};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use serde::Serialize;
use utoipa::ToSchema;

/// What is known about a code.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedBody {
    #[schema(value_type = String)]
    code: &'static str,
    /// The statuses that it comes with; more than one where it depends on what was asked.
    statuses: Vec<u16>,
    /// What it means.
    #[schema(value_type = String)]
    title: &'static str,
    /// What to do.
    #[schema(value_type = String)]
    hint: &'static str,
}

/// All codes, each once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedList {
    items: Vec<ExplainedBody>,
}

fn explained() -> Vec<ExplainedBody> {
    let mut list: Vec<ExplainedBody> = Vec::new();
    for (status, ProblemInfo { code, meaning, hint }) in all() {
        match list.iter_mut().find(|known| known.code == code) {
            Some(known) if known.statuses.contains(&status) => {}
            Some(known) => known.statuses.push(status),
            None => list.push(ExplainedBody { code, statuses: vec![status], title: meaning, hint }),
        }
    }
    list
}

/// Every code that a problem document can have.
#[utoipa::path(
    get, path = "/problems", tag = "problems", operation_id = "listProblems", security(()),
    responses((status = 200, description = "All codes", body = ExplainedList, content_type = "application/json"))
)]
pub(crate) async fn list() -> Result<Json, Problem> {
    Json::of(&ExplainedList { items: explained() })
}

/// What a code means, and what to do.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "problems", operation_id = "getProblem", security(()),
    params(("code" = String, Path, description = "As in a problem document")),
    responses(
        (status = 200, description = "The code", body = ExplainedBody, content_type = "application/json"),
        (status = 404, description = "There is no such code", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(path: Result<Path<String>, PathRejection>) -> Result<Json, Problem> {
    let code = path.map(|Path(code)| code).unwrap_or_default();
    let found = explained().into_iter().find(|known| known.code == code);
    Json::of(&found.ok_or(Problem::plain(ServiceProblem::UnknownCode))?)
}
