//! The pages.

use crate::metrics::{MEDIA_TYPE, Metrics};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Most that `/bytes/N` sends.
const MAX_BYTES: u64 = 1 << 30;

/// All routes.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/style.css", get(style))
        .route("/metrics", get(prometheus))
        .route("/bytes/{count}", get(bytes))
        .fallback(not_found)
        .with_state(metrics)
}

async fn home(State(metrics): State<Arc<Metrics>>) -> Html<String> {
    Html(format!(
        include_str!("pages/home.html"),
        instance = metrics.instance(),
        uptime = metrics.uptime().as_secs_f64(),
        requests = metrics.requests(),
        open = metrics.open(),
    ))
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("pages/style.css"))
}

async fn prometheus(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], metrics.render())
}

/// As many bytes as requested, generated while they are sent: a download that needs no memory.
async fn bytes(Path(count): Path<u64>) -> Response {
    if count > MAX_BYTES {
        let text = format!("at most {MAX_BYTES} bytes can be asked for\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, Body::new(Alphabet { left: count })).into_response()
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "There is no such page; there are /, /metrics and /bytes/N.\n")
}

/// The alphabet and a line feed, repeated.
struct Alphabet {
    left: u64,
}

const LINE: &[u8] = b"abcdefghijklmnopqrstuvwxyz\n";
/// A whole number of lines.
static LINES: [u8; LINE.len() * 512] = {
    let mut lines = [0; LINE.len() * 512];
    let mut at = 0;
    while at < lines.len() {
        lines[at] = LINE[at % LINE.len()];
        at += 1;
    }
    lines
};

impl HttpBody for Alphabet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(LINES.len());
        self.left -= len as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&LINES[..len])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
