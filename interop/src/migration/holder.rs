//! Which process has the socket of a connection: so a dial's agent is known, whoever made it.

use std::fs;
use std::net::SocketAddr;

/// Which of `processes` has the TCP socket at this end of a connection over IPv4. None if no process has, or cannot be
/// looked into.
pub fn of(local: SocketAddr, processes: &[u32]) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let link = format!("socket:[{}]", inode(&table, local.port())?);
    processes.iter().position(|process| {
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link.as_str()))
    })
}

/// From the system's table: columns are number, local address, remote address, state and so on; the tenth is the inode.
/// A socket that nobody has any more has inode 0.
fn inode(table: &str, port: u16) -> Option<&str> {
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next()?;
        let inode = columns.nth(7)?;
        (local.ends_with(&end) && inode != "0").then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_process_is_found_by_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = client.local_addr().unwrap();
        // Process 1 is another one, and there is no process 4294967295.
        assert_eq!(of(local, &[u32::MAX, 1, std::process::id()]), Some(2));
        assert_eq!(of(local, &[u32::MAX, 1]), None);
    }

    #[test]
    fn the_inode_is_in_the_tenth_column() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:D431 06 00000000:00000000 03:00000A5B 00000000     0        0 0 3 0000\n\
             1: 0100007F:1F90 0100007F:D432 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000\n";
        assert_eq!(inode(table, 8080), Some("4711"));
        assert_eq!(inode(table, 0xd432), None);
    }
}
