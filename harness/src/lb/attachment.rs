// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Programs attached to devices, by links that are pinned: they stay when the process ends.
//!
//! The pins of one load balancer are a folder of bpffs: its maps by their names, and a link for
//! each point and device, as `links/tcx-ingress/eth0`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use libbpf_rs::{Link, MapCore, MapHandle};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use serde::Serialize;

use super::datapath::{Datapath, Options};
use super::maps::{Maps, Sizes};
use crate::csum_prog::Hook;
use crate::error::{BpfDoing, Doing, Error, Result};
use crate::netns;
use crate::tcx::{self, Device, Point};

/// Where bpffs usually is.
const BPFFS: &str = "/sys/fs/bpf";
/// How long, and how often, who wants to change a load balancer waits for another.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Where the pins of a load balancer are, if nobody says otherwise.
pub const PINS: &str = "/sys/fs/bpf/sctp-lb";

const POINTS: [(Point, &str); 3] = [
    (Point::TcxIngress, "tcx-ingress"),
    (Point::TcxEgress, "tcx-egress"),
    (Point::Xdp, "xdp"),
];

/// The maps that programs pin: all that they share.
const MAPS: [&str; 18] = [
    "affinities",
    "asked",
    "assocs",
    "backend_endpoints",
    "backends",
    "by_tag",
    "events",
    "multihomed",
    "our_addrs",
    "paths",
    "policy_endpoints",
    "policy_prefixes",
    "service_names",
    "services",
    "settings",
    "stats",
    "tables",
    "vips",
];

fn point_name(point: Point) -> &'static str {
    POINTS
        .iter()
        .find(|(known, _)| *known == point)
        .map_or("", |(_, name)| name)
}

/// A device that a load balancer is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Attached {
    /// The device, by its name; in another network namespace by the one that it had when it was attached to.
    pub device: String,
    /// `tcx-ingress`, `tcx-egress` or `xdp`.
    pub point: String,
    /// Whether the device is gone: one of the same name is another, which has no program.
    pub gone: bool,
    /// Whether the device is in another network namespace by now: where its program still runs.
    pub moved: bool,
}

/// The folder in which the pins of a load balancer are.
#[derive(Debug, Clone)]
pub struct Pins {
    folder: PathBuf,
}

/// What a hook attaches, and what of the other hook is not to be there any more.
fn points(hook: Hook) -> (&'static [Point], &'static [Point]) {
    match hook {
        Hook::Tc => (&[Point::TcxIngress, Point::TcxEgress], &[Point::Xdp]),
        // XDP sees only what comes in: this node's own errors are tc's.
        Hook::Xdp => (&[Point::Xdp, Point::TcxEgress], &[Point::TcxIngress]),
    }
}

impl Pins {
    /// Pins in this folder, which must be on bpffs if it is there; the usual bpffs is mounted if
    /// it is not.
    ///
    /// # Errors
    /// If bpffs cannot be mounted, or would be gone with this process, or the folder is on another
    /// file system.
    pub fn new(folder: &Path) -> Result<Self> {
        let pin_to = format!("pin to {}", folder.display());
        if folder == Path::new(BPFFS) {
            return Err(Error::Refused(format!(
                "{pin_to}: others pin there too, so it must be a folder below it"
            )));
        }
        if folder.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            if has_own_mounts() {
                return Err(Error::Refused(format!(
                    "{pin_to}: here is no bpffs, and one mounted here would be gone with this \
                     process. Instead of ip netns exec, use nsenter --net=/run/netns/NAME"
                )));
            }
            mount(
                Some("bpf"),
                BPFFS,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .doing(|| format!("mount bpffs at {BPFFS}"))?;
        }
        let there = folder.ancestors().find(|path| path.exists());
        if !there.is_some_and(is_bpffs) {
            return Err(Error::Refused(format!(
                "{pin_to}: it must be on bpffs (mount -t bpf)"
            )));
        }
        Ok(Self {
            folder: folder.to_path_buf(),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn links(&self, point: Point) -> PathBuf {
        self.folder.join("links").join(point_name(point))
    }

    fn link(&self, device: &str, point: Point) -> PathBuf {
        self.links(point).join(file_name(device))
    }

    /// Keeps other processes from changing this load balancer, as long as the guard lives. Waits
    /// for one that is doing so.
    ///
    /// # Errors
    /// [`Error::Busy`] if that takes too long.
    pub fn lock(&self) -> Result<Flock<File>> {
        let start = Instant::now();
        loop {
            match lock(&self.folder) {
                Err(Error::Busy(_)) if start.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_POLL),
                result => return result,
            }
        }
    }

    /// Keeps other processes from watching this load balancer, as long as the guard lives: each
    /// event is for one of them only.
    ///
    /// # Errors
    /// [`Error::Refused`] if one is doing so.
    pub fn lock_events(&self) -> Result<Flock<File>> {
        self.lock_for(
            &self.folder.join("links"),
            "another sctp-lb monitor watches",
            "an event is for one of them only",
        )
    }

    /// Keeps other processes from sharing this load balancer's associations, as long as the guard
    /// lives.
    ///
    /// # Errors
    /// [`Error::Refused`] if one is doing so.
    pub fn lock_exchange(&self) -> Result<Flock<File>> {
        // Any folder that is there and that nobody else locks.
        self.lock_for(
            &self.links(Point::TcxEgress),
            "another sctp-lb share is at work on",
            "name all peers to that",
        )
    }

    fn lock_for(&self, folder: &Path, holder: &str, way_out: &str) -> Result<Flock<File>> {
        lock(folder).map_err(|error| match error {
            Error::Busy(_) => {
                Error::Refused(format!("{holder} {}: {way_out}", self.folder.display()))
            }
            error => error,
        })
    }

    /// Attaches the load balancer to each device, or replaces the program of one that has it
    /// already, also under another name: no packet passes without it. If a device refuses, those
    /// before it stay attached.
    ///
    /// # Errors
    /// If the programs do not load, or a device does not exist or refuses.
    pub fn attach(&self, devices: &[String], hook: Hook, options: &Options) -> Result<()> {
        let result = self.attach_all(devices, hook, options);
        if result.is_err() {
            // Only what is empty can be removed.
            let _ = self.remove_folders();
        }
        result
    }

    fn attach_all(&self, devices: &[String], hook: Hook, options: &Options) -> Result<()> {
        let devices = &proper_names(devices)?;
        for device in devices {
            if !has_ethernet(device)? {
                return Err(Error::Refused(format!(
                    "attach to {device}: its packets have no Ethernet header"
                )));
            }
        }
        let options = Options {
            pins: Some(self.folder.clone()),
            ..options.clone()
        };
        for (point, _) in POINTS {
            let folder = self.links(point);
            fs::create_dir_all(&folder).doing(|| format!("make {}", folder.display()))?;
        }
        self.check_sizes(&options.sizes)?;
        let mut storage = MaybeUninit::uninit();
        let program = Datapath::load(hook, &options, &mut storage)?;
        self.claim_namespace(program.maps())?;
        self.follow_names()?;
        let mut tc_storage = MaybeUninit::uninit();
        let tc = match hook {
            Hook::Tc => None,
            Hook::Xdp => Some(Datapath::load(Hook::Tc, &options, &mut tc_storage)?),
        };
        let egress = tc.as_ref().unwrap_or(&program).egress();
        let egress = egress.ok_or_else(|| Error::Packet("no egress program".into()))?;
        let (wanted, unwanted) = points(hook);
        for device in devices {
            for point in wanted {
                let fd = match point {
                    Point::TcxEgress => egress.as_fd(),
                    _ => program.ingress().as_fd(),
                };
                self.attach_point(device, *point, fd)?;
            }
            for point in unwanted {
                self.remove(&self.link(device, *point))?;
            }
            accept_own_source(device)?;
        }
        Ok(())
    }

    /// The size of a map, if it is pinned.
    fn size_of(&self, map: &str) -> Result<Option<u32>> {
        let path = self.folder.join(map);
        if !path.exists() {
            return Ok(None);
        }
        let pinned = MapHandle::from_pinned_path(&path).bpf(|| format!("open the map {map}"))?;
        Ok(Some(pinned.max_entries()))
    }

    /// The sizes of the maps: those that they have, or else the usual ones.
    ///
    /// # Errors
    /// If a map cannot be opened.
    pub fn sizes(&self) -> Result<Sizes> {
        let usual = Sizes::default();
        Ok(Sizes {
            assocs: self.size_of("assocs")?.unwrap_or(usual.assocs),
            services: self.size_of("services")?.unwrap_or(usual.services),
            backends: self.size_of("backends")?.unwrap_or(usual.backends),
            table_slots: self.size_of("tables")?.unwrap_or(usual.table_slots),
            policy_prefixes: (self.size_of("policy_prefixes")?).unwrap_or(usual.policy_prefixes),
        })
    }

    /// Insists that maps that are pinned have the sizes that are wanted.
    fn check_sizes(&self, wanted: &Sizes) -> Result<()> {
        let sized = [
            "assocs",
            "services",
            "backends",
            "tables",
            "policy_prefixes",
        ];
        for map in sized {
            let Some(wanted) = wanted.of(map) else {
                continue;
            };
            if let Some(is) = self.size_of(map)?.filter(|is| *is != wanted) {
                let map = map.into();
                return Err(Error::Size { map, is, wanted });
            }
        }
        Ok(())
    }

    fn attach_point(&self, device: &str, point: Point, prog: BorrowedFd<'_>) -> Result<()> {
        let path = self.link(device, point);
        let elsewhere = |found| found == Device::Elsewhere;
        if path.exists() && tcx::device_of(&path, point).is_ok_and(elsewhere) {
            self.remove(&path)?;
        }
        if path.exists() {
            self.check_device(device, &path, point)?;
            match replace(&path, prog) {
                // The device that it was on is gone: there may be another of its name.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOLINK) => self.remove(&path)?,
                result => {
                    return result.doing(|| format!("replace the program at {}", path.display()));
                }
            }
        }
        let link = tcx::attach(prog, device, point)?;
        pin(&link, &path).doing(|| format!("pin a link to {}", path.display()))
    }

    /// Gives the links of devices that were renamed the names that those have now.
    fn follow_names(&self) -> Result<()> {
        let rename = |old: &Path, new: &Path| {
            fs::rename(old, new).doing(|| format!("rename {}", old.display()))
        };
        for (point, _) in POINTS {
            let folder = self.links(point);
            let mut moved = Vec::new();
            for file in files(&folder)? {
                let old = folder.join(&file);
                let Ok(Device::Here(index)) = tcx::device_of(&old, point) else {
                    continue;
                };
                let Some(name) = tcx::device_name(index) else {
                    continue;
                };
                let new = self.link(&name, point);
                if old != new {
                    // Two may have changed names. No device's has a lone percent sign here.
                    let between = folder.join(format!("%moved{}", moved.len()));
                    rename(&old, &between)?;
                    moved.push((between, old, new));
                }
            }
            for (between, old, new) in moved {
                // In XDP one program is on all devices: another link may be that of this one.
                let to = if new.exists() { old } else { new };
                rename(&between, &to)?;
            }
        }
        Ok(())
    }

    /// Whether another load balancer, whose pins are elsewhere, has a program on the device too.
    ///
    /// # Errors
    /// If the kernel does not say what is attached there.
    pub fn has_another(&self, device: &str) -> Result<bool> {
        let doing = || format!("look what is attached to {device}");
        let index = if_nametoindex(device).doing(doing)?;
        let tcx = tcx::links_at(index, Point::TcxIngress).doing(doing)?;
        let there = tcx.into_iter().map(|(_, prog)| prog);
        let there: Vec<_> = there.chain([tcx::xdp_program(index)]).collect();
        let name = tcx::device_name(index).unwrap_or_else(|| device.to_string());
        let own = [Point::TcxIngress, Point::Xdp].map(|point| {
            let path = self.link(&name, point);
            // libbpf complains itself of one that is not there.
            let link = path.exists().then(|| Link::open(path))?.ok()?;
            Some(link.info().ok()?.prog_id)
        });
        let is_alike = |prog: &ProgramInfo| prog.name.as_bytes() == b"sctp_lb";
        let mut others = ProgInfoIter::default().filter(is_alike);
        Ok(others.any(|prog| there.contains(&prog.id) && !own.contains(&Some(prog.id))))
    }

    /// Whether names and numbers of devices are those of the network namespace that it is in.
    fn is_here(&self) -> bool {
        let settings = Maps::pinned(&self.folder).and_then(|maps| maps.settings());
        settings.is_ok_and(|known| netns::cookie().is_ok_and(|here| here == known.netns))
    }

    /// Insists that the link is not another device's, which has been renamed since.
    fn check_device(&self, device: &str, link: &Path, point: Point) -> Result<()> {
        let here = if_nametoindex(device).ok();
        match tcx::device_of(link, point) {
            Ok(Device::Here(index)) if here.is_some_and(|here| here != index) => {
                Err(Error::Refused(format!(
                    "{} is of another device, which had the name {device}: sctp-lb detach --all, \
                     or give the devices their names back",
                    link.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Insists that the devices it is attached to are in this network namespace: names and numbers
    /// of devices may be the same in another.
    fn check_namespace(&self, maps: &Maps) -> Result<()> {
        let known = maps.settings()?.netns;
        let in_other = known != 0 && known != netns::cookie()?;
        if in_other && self.attached()?.iter().any(|found| !found.gone) {
            return Err(Error::Refused(format!(
                "{} is of a load balancer in another network namespace: run this there (nsenter \
                 --net=/run/netns/NAME), or use another folder for this one (--pins)",
                self.folder.display()
            )));
        }
        Ok(())
    }

    /// Notes that the devices are in this network namespace.
    fn claim_namespace(&self, maps: &Maps) -> Result<()> {
        self.check_namespace(maps)?;
        maps.set_netns(netns::cookie()?)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.doing(|| format!("remove {}", path.display())),
        }
    }

    /// Detaches the load balancer from the devices. Associations stay known, should it come back.
    ///
    /// # Errors
    /// If it is not attached to each of them: then nothing is changed.
    pub fn detach(&self, devices: &[String]) -> Result<()> {
        match Maps::pinned(&self.folder) {
            Ok(maps) => {
                self.check_namespace(&maps)?;
                self.follow_names()?;
            }
            // Who knows where it was attached, of another version; or it is not attached at all.
            Err(Error::Layout(..)) => {}
            Err(_) if self.attached()?.is_empty() => {}
            Err(error) => return Err(error),
        }
        let attached = self.attached()?;
        // One that is gone has no other name.
        let devices = &proper_names(devices).unwrap_or_else(|_| devices.to_vec());
        for device in devices {
            if !attached.iter().any(|found| found.device == *device) {
                return Err(Error::Refused(format!(
                    "detach from {device}: sctp-lb is not attached there"
                )));
            }
        }
        let links = devices.iter().flat_map(|device| {
            let links = POINTS.map(|(point, _)| (device, point, self.link(device, point)));
            links.into_iter().filter(|(_, _, link)| link.exists())
        });
        let links: Vec<_> = links.collect();
        for (device, point, link) in &links {
            self.check_device(device, link, *point)?;
        }
        links.iter().try_for_each(|(_, _, link)| self.remove(link))
    }

    /// Detaches the load balancer from all devices, and forgets all services and associations.
    ///
    /// # Errors
    /// If a pin cannot be removed, or the devices are in another network namespace.
    pub fn detach_all(&self) -> Result<()> {
        // Who has no maps, or those of another version, may begin anew.
        if let Ok(maps) = Maps::pinned(&self.folder) {
            self.check_namespace(&maps)?;
        }
        // No program must run without its maps.
        for (point, _) in POINTS {
            let links = self.links(point);
            for link in files(&links)? {
                self.remove(&links.join(link))?;
            }
        }
        for map in MAPS {
            self.remove(&self.folder.join(map))?;
        }
        self.remove_folders()
    }

    fn remove_folders(&self) -> Result<()> {
        for (point, _) in POINTS {
            remove_folder(&self.links(point))?;
        }
        remove_folder(&self.folder.join("links"))?;
        remove_folder(&self.folder)
    }

    /// Where the load balancer is attached.
    ///
    /// # Errors
    /// If the pins cannot be read.
    pub fn attached(&self) -> Result<Vec<Attached>> {
        let is_here = self.is_here();
        let mut attached = Vec::new();
        for (point, name) in POINTS {
            let folder = self.links(point);
            for file in files(&folder)? {
                // What is no link of ours, or is being removed, is not attached.
                let Ok(found) = tcx::device_of(&folder.join(&file), point) else {
                    continue;
                };
                let device = match found {
                    Device::Here(index) if is_here => tcx::device_name(index),
                    _ => None,
                };
                attached.push(Attached {
                    device: device.unwrap_or_else(|| device_name(&file)),
                    point: name.to_string(),
                    gone: found == Device::Gone,
                    moved: is_here && found == Device::Elsewhere,
                });
            }
        }
        attached.sort();
        Ok(attached)
    }
}

/// The devices by their names, where others were given for them (`ip link property add … altname`).
fn proper_names(devices: &[String]) -> Result<Vec<String>> {
    let proper = devices.iter().map(|device| {
        let index = if_nametoindex(device.as_str()).doing(|| format!("no device {device}"))?;
        Ok(tcx::device_name(index).unwrap_or_else(|| device.clone()))
    });
    proper.collect()
}

fn lock(folder: &Path) -> Result<Flock<File>> {
    let doing = || format!("lock {}", folder.display());
    fs::create_dir_all(folder).doing(doing)?;
    let file = File::open(folder).doing(doing)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(guard) => Ok(guard),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::Busy(folder.display().to_string())),
        Err((_, error)) => Err(io::Error::from(error)).doing(doing),
    }
}

/// The names in a folder; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let doing = || format!("read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.doing(doing)?,
    };
    entries
        .map(|entry| Ok(entry.doing(doing)?.file_name().to_string_lossy().into()))
        .collect()
}

/// What somebody else has pinned there stays.
fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.doing(|| format!("remove {}", folder.display())),
    }
}

fn has_ethernet(device: &str) -> Result<bool> {
    const ARPHRD_ETHER: u16 = 1;
    let devices = getifaddrs().doing(|| "list the devices".into())?;
    let types = devices.filter(|found| found.interface_name == device);
    let mut types = types.filter_map(|found| Some(found.address?.as_link_addr()?.hatype()));
    Ok(types.any(|hatype| hatype == ARPHRD_ETHER))
}

/// A setting of the device in IPv4.
fn ipv4_setting(device: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(device).join(name)
}

/// A packet may become one from this node itself: from its port to the client, or to a backend
/// that is not to see the client. IPv4 takes such a source for a forgery, unless told otherwise.
fn accept_own_source(device: &str) -> Result<()> {
    let path = ipv4_setting(device, "accept_local");
    match fs::write(&path, "1") {
        // No IPv4.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.doing(|| format!("write 1 to {}", path.display())),
    }
}

/// Whether this node has the address.
pub fn is_local(addr: IpAddr) -> bool {
    getifaddrs().is_ok_and(|mut devices| {
        devices.any(|found| {
            let found = found.address.and_then(|found| {
                let ipv4 = found.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
                ipv4.or_else(|| Some(found.as_sockaddr_in6()?.ip().into()))
            });
            found == Some(addr)
        })
    })
}

/// Whether IPv4 drops what comes in by the device from an address that it would not be sent to by
/// it (RFC 3704, strict): also what has become a packet from this node itself.
pub fn is_reverse_path_strict(device: &str) -> bool {
    let settings = ["all", device].map(|device| ipv4_setting(device, "rp_filter"));
    let read = |path: &PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u8>().ok();
    settings.iter().filter_map(read).max() == Some(1)
}

/// The setting of the device by which packets that come in by it go nowhere, if there is one: of
/// IPv4, or of IPv6 if the device has an address of it that is not only the link's.
pub fn is_not_forwarding(device: &str) -> Option<String> {
    let has_ipv6 = getifaddrs().is_ok_and(|mut devices| {
        devices.any(|found| {
            let addr = found
                .address
                .and_then(|addr| addr.as_sockaddr_in6().copied());
            found.interface_name == device
                && addr.is_some_and(|addr| !addr.ip().is_unicast_link_local())
        })
    });
    let families = [("ipv4", true), ("ipv6", has_ipv6)];
    families.into_iter().find_map(|(family, used)| {
        let path = format!("/proc/sys/net/{family}/conf/{device}/forwarding");
        let off = fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
        (used && off).then(|| format!("net.{family}.conf.{device}.forwarding"))
    })
}

/// bpffs takes no dots in names, which VLAN devices have.
fn file_name(device: &str) -> String {
    device.replace('%', "%25").replace('.', "%2E")
}

fn device_name(file: &str) -> String {
    file.replace("%2E", ".").replace("%25", "%")
}

/// Whether this process sees other mounts than who started it, so that those that it makes end with
/// it: as with `ip netns exec`, which also hides bpffs.
fn has_own_mounts() -> bool {
    let mounts = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let starter = mounts(std::os::unix::process::parent_id());
    starter.is_some() && starter != mounts(std::process::id())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Gives a pinned link another program.
fn replace(path: &Path, prog: BorrowedFd<'_>) -> io::Result<()> {
    let link = Link::open(path).map_err(|e| io::Error::other(e.to_string()))?;
    // SAFETY: a plain system call on descriptors that live; null options are allowed.
    let err = unsafe {
        libbpf_sys::bpf_link_update(link.as_fd().as_raw_fd(), prog.as_raw_fd(), std::ptr::null())
    };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    Ok(())
}

fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a plain system call on a descriptor that lives and a string that ends with zero.
    let err = unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    Ok(())
}
