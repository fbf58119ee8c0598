//! The model as the library's controller: nothing is decided here.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use super::model::Model;

/// Makes a controller for each path of a connection.
#[derive(Debug, Clone)]
pub(super) struct ModelFactory {
    /// Bytes that may be in flight before anything is known.
    pub(super) initial_window: u64,
}

impl ControllerFactory for ModelFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new(now, current_mtu, self.initial_window))
    }
}

/// The library's estimate of the round trip is not used: it has no way to tell one round from another, and its minimum
/// never rises again.
impl Controller for Model {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        Model::on_sent(self, now, bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        Model::on_ack(self, now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        Model::on_end_acks(self, now, in_flight, app_limited);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        Model::on_loss(self, now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.on_packet_size(new_mtu);
    }

    fn window(&self) -> u64 {
        Model::window(self)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        Model::initial_window(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{super::CongestionControl, *};

    #[test]
    fn every_controller_has_a_name() {
        for control in CongestionControl::ALL {
            assert_eq!(control.name().parse(), Ok(control));
            let factory = control.factory(32 * 1_200, Arc::default());
            assert_eq!(factory.build(Instant::now(), 1_200).initial_window(), 32 * 1_200);
        }
        let unknown = "vegas".parse::<CongestionControl>().unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "there is no congestion control \"vegas\": choose model, cubic, bbr or newreno"
        );
    }

    fn endpoints(control: CongestionControl) -> (quinn::Endpoint, quinn::Endpoint) {
        let mut transport = quinn::TransportConfig::default();
        transport.congestion_controller_factory(control.factory(32 * 1_200, Arc::default()));
        let transport = Arc::new(transport);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut server = quinn::ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
        server.transport_config(transport.clone());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut client = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        client.transport_config(transport);
        let any_port = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let mut near = quinn::Endpoint::client(any_port).unwrap();
        near.set_default_client_config(client);
        (near, quinn::Endpoint::server(server, any_port).unwrap())
    }

    /// The library calls the controller as the simulation does: real connections carry what is sent.
    #[tokio::test]
    async fn real_connections_carry_what_is_sent() {
        const BYTES: usize = 4 << 20;
        for control in CongestionControl::ALL {
            let (near, far) = endpoints(control);
            let connecting = near.connect(far.local_addr().unwrap(), "localhost").unwrap();
            let accept = async { far.accept().await.unwrap().await.unwrap() };
            let (near_end, far_end) = tokio::join!(async { connecting.await.unwrap() }, accept);
            let began = Instant::now();
            let send = async {
                let mut stream = near_end.open_uni().await.unwrap();
                stream.write_all(&vec![7; BYTES]).await.unwrap();
                stream.finish().unwrap();
            };
            let receive = async { far_end.accept_uni().await.unwrap().read_to_end(BYTES).await.unwrap() };
            let ((), received) = tokio::join!(send, receive);
            println!("{control}: {BYTES} bytes in {:?}, window {}", began.elapsed(), near_end.stats().path.cwnd);
            assert_eq!(received.len(), BYTES);
        }
    }
}
