// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Network namespaces that have no name: they are gone when the last descriptor is closed, also
//! after a crash.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};

use crate::error::{Doing, Error, Result};

/// A network namespace of our own.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

/// Runs `f` on a thread of its own, so that the caller's thread keeps its namespace.
fn on_own_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(f).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The number of the network namespace that this thread is in, which no other gets until the next
/// boot (`SO_NETNS_COOKIE`, since Linux 5.14).
///
/// # Errors
/// If there is no socket to ask.
pub fn cookie() -> Result<u64> {
    let doing = || "ask for the cookie of this network namespace".to_string();
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).doing(doing)?;
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: a plain system call on a descriptor that lives; `cookie` is as long as `len` says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).doing(doing)?;
    Ok(cookie)
}

impl Namespace {
    /// Makes a namespace. Nothing in it is up yet.
    ///
    /// # Errors
    /// If the user may not (CAP_SYS_ADMIN).
    pub fn new() -> Result<Self> {
        let fd = on_own_thread(|| -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).doing(|| "unshare the network".into())?;
            let file = File::open("/proc/thread-self/ns/net")
                .doing(|| "open the new network namespace".into())?;
            Ok(file.into())
        })?;
        Ok(Self { fd })
    }

    /// Runs `f` on a thread in this namespace and returns what it returns.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .doing(|| "enter a network namespace".into())?;
            Ok(f())
        })
    }

    /// Runs a program in this namespace and returns what it printed.
    ///
    /// # Errors
    /// If it is missing, or exits with another code than zero: with what it said.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String> {
        self.command_with_input(program, args, "")
    }

    /// Runs all `commands` of `ip` in one process, because to start one is slow under emulation.
    ///
    /// # Errors
    /// If one of them fails: the rest is not run.
    pub fn ip_batch(&self, commands: &[String]) -> Result<()> {
        self.command_with_input("ip", &["-batch", "-"], &commands.join("\n"))?;
        Ok(())
    }

    fn command_with_input(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let output = self
            .run(|| {
                let mut child = Command::new(program)
                    .args(args)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()?;
                // The pipe is closed when it is dropped; a program that does not read is fine.
                if let Some(mut stdin) = child.stdin.take() {
                    let _ = stdin.write_all(input.as_bytes());
                }
                child.wait_with_output()
            })?
            .doing(|| format!("run `{program}` (is it installed? try scripts/setup vm)"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command {
            command: format!("{program} {}", args.join(" ")),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_string(),
        })
    }

    /// Sets a sysctl of this namespace, for example `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// If the kernel has no such sysctl or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value))?
            .doing(|| format!("set the sysctl {name} to {value}"))
    }

    /// A path that names this namespace for `ip link set DEV netns PATH`.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }
}
