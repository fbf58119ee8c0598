//! Health, readiness, metrics and the admin port of both programs.

use konnectivity_interop::pair::{Options, Pair};

#[tokio::test]
async fn smoke() {
    for options in [Options::unix(), Options::mutual_tls(), Options::mutual_tls().host(std::net::Ipv6Addr::LOCALHOST)] {
        let pair = Pair::start(options.agents([&[], &[]])).await.unwrap();
        let error = pair.dial("127.0.0.1:1").await.unwrap_err();
        println!("{error}\n{}\n{}", pair.server.program.log(), pair.agents[0].program.log());
    }
}
