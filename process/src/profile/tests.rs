use std::time::SystemTime;

use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use pprof::{Frames, Symbol};
use prost::Message;

use super::*;

fn get(target: &str) -> Request {
    Request::builder().uri(target).body(()).unwrap()
}

async fn ask(target: &str) -> (Response, String) {
    let response = match answer(&get(target)) {
        Answer::Now(response) => response,
        Answer::Later(response) => response.await,
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, http_body_util::Full::default()), String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn only_paths_of_profiles_are_served() {
    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/profile", "/debug/pprof/unheard-of"] {
        assert!(serves(path), "{path}");
    }
    for path in ["/debug", "/debug/pprofile", "/", "/metrics"] {
        assert!(!serves(path), "{path}");
    }
}

#[tokio::test]
async fn every_page_answers_as_in_go_or_says_why_not() {
    let (response, body) = ask("/debug/pprof?debug=1").await;
    assert_eq!((response.status().as_u16(), &response.headers()["location"]), (301, &"/debug/pprof/".parse().unwrap()));
    assert_eq!(body, "<a href=\"/debug/pprof/\">Moved Permanently</a>.\n\n");

    let (response, body) = ask("/debug/pprof/").await;
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &HTML.parse().unwrap()));
    for name in ["profile", "cmdline", "trace", "mutex"] {
        assert!(body.contains(name), "{body}");
    }

    let (response, body) = ask("/debug/pprof/cmdline").await;
    assert_eq!(response.status(), 200);
    assert_eq!(body.split('\0').next(), std::env::args().next().as_deref());

    for (name, instead) in MISSING {
        let (response, body) = ask(&format!("/debug/pprof/{name}")).await;
        assert_eq!((response.status().as_u16(), body), (501, format!("not available: {instead}\n")));
        assert_eq!(response.headers()["x-go-pprof"], "1");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    }
    let (response, body) = ask("/debug/pprof/nothing").await;
    assert_eq!((response.status().as_u16(), body.as_str()), (404, "Unknown profile\n"));
}

#[tokio::test]
async fn a_profile_has_a_length_within_bounds() {
    assert_eq!(seconds(None), Ok(30));
    assert_eq!(seconds(Some("debug=1&seconds=300")), Ok(300));
    for query in ["seconds=0", "seconds=301", "seconds=-1", "seconds=1.5", "seconds=", "seconds=x"] {
        let (response, body) = ask(&format!("/debug/pprof/profile?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        assert_eq!(body, "seconds must be a whole number from 1 to 300\n");
    }
}

/// Texts of a profile at these places.
fn text(profile: &proto::Profile, place: i64) -> &str {
    &profile.string_table[usize::try_from(place).unwrap()]
}

/// One of the process at a time, so this is one test.
#[tokio::test]
async fn one_profile_at_a_time_is_taken_of_what_runs() {
    let running = cpu::start().unwrap();
    let (response, body) = ask("/debug/pprof/profile?seconds=1").await;
    assert_eq!(response.status(), 503);
    assert_eq!(body, "another CPU profile is being taken; try again when it is done\n");
    drop(running);

    let busy = tokio::task::spawn_blocking(|| {
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < std::time::Duration::from_millis(900) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    });
    let (packed, _) = tokio::join!(cpu::profile(1), busy);

    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(packed.unwrap().as_slice()), &mut bytes).unwrap();
    let profile = proto::Profile::decode(bytes.as_slice()).unwrap();
    let kinds: Vec<_> = profile.sample_type.iter().map(|kind| text(&profile, kind.r#type)).collect();
    assert_eq!(kinds, ["samples", "cpu"]);
    assert_eq!(profile.period, 1_000_000_000 / 99);
    assert!(profile.duration_nanos >= 1_000_000_000, "{}", profile.duration_nanos);
    assert!(!profile.sample.is_empty());
    let names: Vec<_> = profile.function.iter().map(|function| text(&profile, function.name)).collect();
    assert!(names.iter().any(|name| name.contains("one_profile_at_a_time")), "{names:?}");
}

#[test]
fn texts_functions_and_places_are_written_once() {
    let symbol = |name: &str, line| Symbol {
        name: Some(name.as_bytes().to_vec()),
        addr: None,
        lineno: Some(line),
        filename: Some("file.rs".into()),
    };
    let stack =
        |frames| Frames { frames, thread_name: "worker".into(), thread_id: 7, sample_timestamp: SystemTime::now() };
    let inlined = || vec![symbol("inner", 3), symbol("outer", 9)];
    let mut builder = proto::Builder::new(SystemTime::UNIX_EPOCH, std::time::Duration::from_secs(2), 100);
    builder.add(&stack(vec![inlined(), vec![symbol("main", 1)]]), 5);
    builder.add(&stack(vec![vec![symbol("main", 1)]]), 1);
    let profile = builder.finish();
    assert_eq!(profile.string_table[0], "");
    assert_eq!((profile.time_nanos, profile.duration_nanos, profile.period), (0, 2_000_000_000, 10_000_000));
    assert_eq!(profile.function.len(), 3);
    assert_eq!(profile.location.iter().map(|location| location.line.len()).collect::<Vec<_>>(), [2, 1]);
    let samples: Vec<_> =
        profile.sample.iter().map(|sample| (sample.location_id.clone(), sample.value.clone())).collect();
    assert_eq!(samples, [(vec![1, 2], vec![5, 50_000_000]), (vec![2], vec![1, 10_000_000])]);
    assert_eq!(text(&profile, profile.sample[0].label[0].str), "worker");
    let lines: Vec<_> = profile.location[0]
        .line
        .iter()
        .map(|line| {
            let function = &profile.function[usize::try_from(line.function_id).unwrap() - 1];
            (text(&profile, function.name), text(&profile, function.filename), line.line)
        })
        .collect();
    assert_eq!(lines, [("inner", "file.rs", 3), ("outer", "file.rs", 9)]);
}
