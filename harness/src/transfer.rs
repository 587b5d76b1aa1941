// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Payload over an association: as many bytes each way at the same time, hashed at both ends.

use std::io::{Read, Write};
use std::thread;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use socket2::Socket;

use crate::error::{Doing, Error, Result};

/// Bytes per message: more than fits a packet, so that messages are fragmented into chunks.
const MESSAGE_LEN: usize = 8192;

type Hash = [u8; 32];

fn send(mut socket: &Socket, len: usize, seed: u64) -> Result<Hash> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut hash = Sha256::new();
    let mut message = vec![0; MESSAGE_LEN];
    let mut left = len;
    while left > 0 {
        let message = &mut message[..MESSAGE_LEN.min(left)];
        rng.fill_bytes(message);
        hash.update(&message);
        socket
            .write_all(message)
            .doing(|| format!("send, with {left} bytes left"))?;
        left -= message.len();
    }
    Ok(hash.finalize().into())
}

fn receive(mut socket: &Socket, len: usize) -> Result<Hash> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut left = len;
    while left > 0 {
        let wanted = buffer.len().min(left);
        let got = socket
            .read(&mut buffer[..wanted])
            .doing(|| format!("receive, with {left} bytes left"))?;
        if got == 0 {
            return Err(Error::Association(format!(
                "it ended with {left} bytes left"
            )));
        }
        hash.update(&buffer[..got]);
        left -= got;
    }
    Ok(hash.finalize().into())
}

/// Sends `len` random bytes from `client` to `server` and as many back, at the same time.
///
/// Returns whether what was received is what was sent, in both directions.
///
/// # Errors
/// If the association breaks or stalls longer than the sockets' timeout.
pub fn both_ways(client: &Socket, server: &Socket, len: usize) -> Result<bool> {
    thread::scope(|scope| {
        let sent = [(client, 1), (server, 2)]
            .map(|(socket, seed)| scope.spawn(move || send(socket, len, seed)));
        let received = [server, client].map(|socket| scope.spawn(move || receive(socket, len)));
        let mut intact = true;
        for (sent, received) in sent.into_iter().zip(received) {
            let join = |joined: thread::Result<Result<Hash>>| match joined {
                Ok(hash) => hash,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            intact &= join(sent.join())? == join(received.join())?;
        }
        Ok(intact)
    })
}
