use konnectivity_interop::{ends::*, pair::*};
use std::sync::{Arc, atomic::*};
use tokio::io::AsyncWriteExt;
#[tokio::test]
async fn debug() {
    let n: usize = std::env::var("N").map(|n| n.parse().unwrap()).unwrap_or(64);
    let args: Vec<String> = std::env::var("ARGS").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let pair = Pair::start(
        if std::env::var("TLS").is_ok() { Options::mutual_tls() } else { Options::unix() }
            .server(args.clone())
            .agent(args),
    )
    .await
    .unwrap();
    let client = pair.client().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let w = written.clone();
    let source = Target::new(move |mut s| {
        let w = w.clone();
        async move {
            let chunk = vec![0; 65536];
            while s.write_all(&chunk).await.is_ok() {
                w.fetch_add(65536, Ordering::Relaxed);
            }
        }
    });
    let mut all = vec![];
    for i in 0..n {
        let started = std::time::Instant::now();
        let dial =
            tokio::time::timeout(std::time::Duration::from_secs(5), client.dial(&source.address.to_string())).await;
        if started.elapsed().as_millis() > 100 {
            println!("dial {i}: {:?}", started.elapsed());
        }
        match dial {
            Ok(d) => all.push(d.unwrap()),
            Err(_) => {
                println!(
                    "dial {i} hangs\nserver {:#?}\nagent {:#?}",
                    pair.server.connections().await.unwrap(),
                    pair.agents[0].connections().await.unwrap()
                );
                println!("server {}\nagent {}", pair.server.program.id(), pair.agents[0].program.id());
                panic!();
            }
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    println!("rss server {} agent {}", resident(&pair.server.program), resident(&pair.agents[0].program));
    if std::env::var("GDB").is_ok() {
        for id in [pair.server.program.id(), pair.agents[0].program.id()] {
            let o = std::process::Command::new("gdb")
                .args([
                    "-batch",
                    "-p",
                    &id.to_string(),
                    "-ex",
                    "call (void)malloc_stats()",
                    "-ex",
                    "call (int)malloc_trim(0)",
                ])
                .output()
                .unwrap();
            println!("{}", String::from_utf8_lossy(&o.stdout).lines().rev().take(3).collect::<Vec<_>>().join("|"));
        }
        println!(
            "rss after trim server {} agent {}",
            resident(&pair.server.program),
            resident(&pair.agents[0].program)
        );
        println!("SRV {}", pair.server.program.log());
    }
    let target = Target::echo();
    let mut dial = client.dial(&target.address.to_string()).await.unwrap();
    for i in 0..100 {
        let started = std::time::Instant::now();
        let r = tokio::time::timeout(std::time::Duration::from_secs(5), echo(&mut dial, &pattern(0, 1_000_000))).await;
        if started.elapsed().as_millis() > 200 {
            println!("echo {i}: {:?}", started.elapsed());
        }
        if r.is_err() {
            println!(
                "echo {i} hangs\nserver {:#?}\nagent {:#?}",
                pair.server.connections().await.unwrap(),
                pair.agents[0].connections().await.unwrap()
            );
            panic!();
        }
    }
    println!("written {} server {:#?}", written.load(Ordering::Relaxed), pair.server.connections().await.unwrap());
}
