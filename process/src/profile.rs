//! What a program's time goes to: the pages under `/debug/pprof/`, where tools made for Go programs look for them.
//!
//! Only the CPU can be profiled. What Go knows of its own runtime (goroutines, its heap, its traces) is not there, and
//! each such page says what to use instead.

use hyper::{StatusCode, header};

use crate::admin::{Answer, HTML, NO_SNIFF, Request, Response, error, redirect, text, with_type};

mod cpu;
mod proto;

/// The page that leads to the others.
const INDEX: &str = "/debug/pprof/";

/// Profiles of Go that are not made here: name, and what to use instead.
const MISSING: [(&str, &str); 9] = [
    ("allocs", "allocations are not profiled; run the program under heaptrack or `perf record -e probe_libc:malloc`"),
    ("block", "waiting is not profiled; `offcputime` of bcc shows where threads sleep"),
    ("goroutine", "there are no goroutines; `/connections` shows dials, `eu-stack -p PID` the stacks of threads"),
    ("goroutineleak", "there are no goroutines; `/connections` shows dials, `eu-stack -p PID` the stacks of threads"),
    ("heap", "memory is not profiled; process_resident_memory_bytes of /metrics shows it, heaptrack what it is for"),
    ("mutex", "contention is not profiled; `perf lock` and `perf trace -s -e futex` show it"),
    ("symbol", "profiles carry the names of functions, as far as the program has them"),
    ("threadcreate", "threads are started once, at the beginning; process_threads of /metrics counts them"),
    ("trace", "there is no Go runtime to trace; `perf trace` shows system calls, --log-level=trace shows messages"),
];

/// Whether [`answer`] knows this path.
pub fn serves(path: &str) -> bool {
    path.strip_prefix("/debug/pprof").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request whose path [`serves`] accepts.
pub fn answer(request: &Request) -> Answer {
    let Some(name) = request.uri().path().strip_prefix(INDEX) else {
        return redirect(request, INDEX).into();
    };
    match name {
        "" => index().into(),
        "profile" => match seconds(request.uri().query()) {
            Ok(seconds) => Answer::Later(Box::pin(profile(seconds))),
            Err(reason) => refused(StatusCode::BAD_REQUEST, reason).into(),
        },
        "cmdline" => command_line().into(),
        name => match MISSING.iter().find(|(missing, _)| *missing == name) {
            Some((_, instead)) => refused(StatusCode::NOT_IMPLEMENTED, format!("not available: {instead}\n")).into(),
            None => refused(StatusCode::NOT_FOUND, "Unknown profile\n").into(),
        },
    }
}

/// `go tool pprof` shows the text of such a reply to its user.
fn refused(status: StatusCode, reason: impl Into<bytes::Bytes>) -> Response {
    let mut response = error(status, reason);
    response.headers_mut().insert("x-go-pprof", header::HeaderValue::from_static("1"));
    response
}

/// How long to measure, from the query; 30 seconds if it does not say.
fn seconds(query: Option<&str>) -> Result<u16, String> {
    let value = query.unwrap_or_default().split('&').find_map(|part| part.strip_prefix("seconds="));
    match value.map(str::parse) {
        None => Ok(cpu::DEFAULT_SECONDS),
        Some(Ok(seconds)) if (1..=cpu::MAX_SECONDS).contains(&seconds) => Ok(seconds),
        Some(_) => Err(format!("seconds must be a whole number from 1 to {}\n", cpu::MAX_SECONDS)),
    }
}

async fn profile(seconds: u16) -> Response {
    match cpu::profile(seconds).await {
        Ok(profile) => {
            let mut response = with_type(profile, "application/octet-stream");
            let headers = response.headers_mut();
            let name = header::HeaderValue::from_static("attachment; filename=\"profile\"");
            headers.insert(header::CONTENT_DISPOSITION, name);
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
            response
        }
        Err(failure @ cpu::ProfileError::Running) => refused(StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
        Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")),
    }
}

/// The program and its arguments with zero bytes between them, as Go gives them. No argument is a secret: files are
/// named, not written out.
fn command_line() -> Response {
    let arguments: Vec<_> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    text(StatusCode::OK, arguments.join("\0"))
}

fn index() -> Response {
    let mut page = String::from(
        "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<ul>\n\
         <li><a href='profile?seconds=30'>profile</a>: where CPU time goes, for `go tool pprof`; seconds=N says for \
         how long it is measured</li>\n\
         <li><a href='cmdline'>cmdline</a>: the command line of this program</li>\n</ul>\nNot available:\n<ul>\n",
    );
    for (name, instead) in MISSING {
        page += &format!("<li>{name}: {instead}</li>\n");
    }
    page += "</ul>\n</body>\n</html>\n";
    let mut response = with_type(page, HTML);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

#[cfg(test)]
mod tests;
