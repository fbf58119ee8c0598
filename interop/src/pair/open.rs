//! An established dial with both its ends in the test's hand.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::client::Client;
use crate::load::path::Dial;

/// Everything here is on one machine.
const WITHIN: Duration = Duration::from_secs(10);

/// A dial from a client to a target that the test plays, too.
#[derive(Debug)]
pub struct Open {
    /// The client's end.
    pub client: Dial,
    /// The target's end.
    pub target: TcpStream,
}

impl Open {
    /// Dials `target` through `frontend`, and accepts there.
    ///
    /// # Errors
    /// When either fails or takes too long.
    pub async fn dial(frontend: &Client, target: &TcpListener) -> anyhow::Result<Self> {
        Self::dial_within(WITHIN, frontend, target).await
    }

    /// The same with more or less patience.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn dial_within(limit: Duration, frontend: &Client, target: &TcpListener) -> anyhow::Result<Self> {
        let address = target.local_addr()?.to_string();
        let dial = async { anyhow::Ok(frontend.dial(&address).await?) };
        let accept = async { Ok(target.accept().await?.0) };
        let both = timeout(limit, async { tokio::try_join!(dial, accept) });
        let (client, target) = both.await.context("the dial and its target did not meet")??;
        Ok(Self { client, target })
    }

    /// Sends bytes both ways.
    ///
    /// # Errors
    /// When they do not arrive, or not as they were.
    pub async fn exchange(&mut self) -> anyhow::Result<()> {
        let both = async {
            let mut got = [0; 4];
            self.client.write_all(b"ping").await.context("client sends")?;
            self.target.read_exact(&mut got).await.context("target receives")?;
            if got != *b"ping" {
                bail!("the target got {got:?}");
            }
            self.target.write_all(b"pong").await.context("target sends")?;
            self.client.read_exact(&mut got).await.context("client receives")?;
            if got != *b"pong" {
                bail!("the client got {got:?}");
            }
            Ok(())
        };
        timeout(WITHIN, both).await.context("no exchange")?
    }
}
