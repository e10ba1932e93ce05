/**
 * The N-API addon over libbpf: small, synchronous, and the only place that makes bpf system calls.
 *
 * File descriptors are plain numbers that the caller closes. Every failure throws a BpfError; a
 * missing key is not a failure but `false`. Buffers are checked against the map's key and value size
 * (rounded as the kernel does, times the CPUs for per-CPU maps) before the kernel sees them: a wrong
 * length or type throws a TypeError or RangeError and never reaches the kernel.
 */

/** Thrown for every failed operation: `map_update frontends: E2BIG (no room: the map is full)`. */
export interface BpfError extends Error {
  /** "map_update", "object_load", "link_xdp", ... */
  readonly operation: string;
  /** "E2BIG", "EPERM", ... ENOTSUPP (524) included. */
  readonly code: string;
  readonly errno: number;
  /** The map, program, path or device it was about; "" when none. */
  readonly subject: string;
  /** The tail of libbpf's or the verifier's log, for object_load; "" otherwise. */
  readonly log: string;
  /** Batches only: how many elements were written before the one that failed. */
  readonly done?: number;
}

export interface MapInfo {
  readonly id: number;
  readonly name: string;
  /** BPF_MAP_TYPE_*. */
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
}

export interface ProgramInfo {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  /** Hex. */
  readonly tag: string;
}

export interface LinkInfo {
  readonly id: number;
  /** BPF_LINK_TYPE_*. */
  readonly type: number;
  readonly programId: number;
  /** 0 when the device is gone or the link is no device's. */
  readonly ifindex: number;
  readonly attachType: number;
}

export interface TestRun {
  readonly retval: number;
  /** Mean ns a run. */
  readonly duration: number;
  /** The packet as the program left it. */
  readonly data: Uint8Array;
}

export interface Interface {
  readonly name: string;
  readonly index: number;
  readonly mtu: number;
  readonly up: boolean;
  readonly loopback: boolean;
  /** Its frames have Ethernet headers; not so with ipip, gre, wireguard, tun, ppp. */
  readonly ethernet: boolean;
  /** "aa:bb:cc:dd:ee:ff"; "" when the device has none. */
  readonly mac: string;
  /** The kind of a virtual device (IFLA_INFO_KIND): "veth", "vxlan", "bridge"; else ETHTOOL_GDRVINFO's driver: "virtio_net"; "" when unknown. */
  readonly driver: string;
  /** Index of the bridge, bond or VRF that it is part of; 0: of none. */
  readonly master: number;
  /** Its other end (a veth's peer, the device below) is in another network namespace. */
  readonly peerElsewhere: boolean;
  /** With prefix: "10.0.0.1/24", "fe80::1/64". */
  readonly addresses: readonly string[];
}

/** A BPF object opened from a file. Loading is one step; before it maps and data can be changed. */
export interface BpfObject {
  /** Names of all maps, .rodata and other internal ones included. */
  maps(): string[];
  programs(): string[];
  setMaxEntries(map: string, entries: number): void;
  /** Use an existing map (of the same type and sizes) instead of creating one. */
  reuseMap(map: string, fd: number): void;
  /** Definition of a map as the object declares it (id 0 before load). */
  mapInfo(map: string): MapInfo;
  /** A copy of .rodata's initial value. */
  rodata(): Uint8Array;
  setRodata(value: Uint8Array): void;
  setAutoload(program: string, load: boolean): void;
  load(): void;
  /** As `load`, on a thread: the verifier takes its time. Until it is done every other method throws EBUSY. */
  loadAsync(): Promise<void>;
  /** Owned by the object until close(): dup() it to keep it. */
  mapFd(map: string): number;
  programFd(program: string): number;
  close(): void;
}

export type CgroupAttach = 'connect4' | 'connect6' | 'sendmsg4' | 'sendmsg6' | 'recvmsg4' | 'recvmsg6' | 'getpeername4' | 'getpeername6' | 'sock_release';

export interface Native {
  open(path: string): BpfObject;

  mapInfo(fd: number): MapInfo;
  /** False: no such key. `value` is filled. */
  mapLookup(fd: number, key: Uint8Array, value: Uint8Array): boolean;
  /** flags: 0 any, 1 only new (EEXIST), 2 only existing (ENOENT); both throw. */
  mapUpdate(fd: number, key: Uint8Array, value: Uint8Array, flags?: number): void;
  /** False: no such key. */
  mapDelete(fd: number, key: Uint8Array): boolean;
  /** `key` undefined: the first. False: no further key. */
  mapNextKey(fd: number, key: Uint8Array | undefined, next: Uint8Array): boolean;
  /** `count` keys and values back to back. Returns how many were written; throws at the first that fails, with `done` on the error. */
  mapUpdateBatch(fd: number, keys: Uint8Array, values: Uint8Array, count: number): number;
  /** Keys that are not there are no failure; returns how many were. */
  mapDeleteBatch(fd: number, keys: Uint8Array, count: number): number;
  /** All entries, in batches of `chunk` (default 4096), falling back to next-key where the map has no batches. */
  mapEntries(fd: number, chunk?: number): { keys: Uint8Array; values: Uint8Array; count: number };
  /** How many entries a hash map has: read in batches, none kept. Throws ENOTSUPP for a map without batches. */
  mapCount(fd: number): number;
  /**
   * An ARRAY with BPF_F_MMAPABLE as memory: each value at a multiple of 8 bytes, the whole rounded up to pages. The mapping lives as long
   * as the buffer; all of it counts as memory of the process, touched or not.
   * @param offset a multiple of the page size; 0 by default.
   * @param length bytes, rounded up to pages; by default to the end.
   */
  mapMmap(fd: number, offset?: number, length?: number): ArrayBuffer;

  pin(fd: number, path: string): void;
  /** Opens a pin; undefined when nothing is there. */
  openPin(path: string): number | undefined;
  /** Maps, programs, links and locks only: a TypeError for any other descriptor of the process. */
  close(fd: number): void;
  dup(fd: number): number;

  programInfo(fd: number): ProgramInfo;
  linkInfo(fd: number): LinkInfo;
  linkCgroup(programFd: number, cgroupPath: string, attach: CgroupAttach): number;
  linkXdp(programFd: number, ifindex: number, mode: 'native' | 'generic'): number;
  /** Throws EINVAL on kernels without tcx (before 6.6). */
  linkTcx(programFd: number, ifindex: number, direction: 'ingress' | 'egress'): number;
  linkUpdate(linkFd: number, programFd: number): void;
  linkDetach(linkFd: number): void;
  /** The older hook: replaces what stands at this handle and priority. */
  clsactAttach(programFd: number, ifindex: number, direction: 'ingress' | 'egress', handle: number, priority: number): void;
  /** Program id at this place; 0 when none. */
  clsactQuery(ifindex: number, direction: 'ingress' | 'egress', handle: number, priority: number): number;
  /** True when something was removed. The clsact qdisc itself stays. */
  clsactDetach(ifindex: number, direction: 'ingress' | 'egress', handle: number, priority: number): boolean;

  /**
   * BPF_PROG_TEST_RUN. `room` is for the packet as it comes back, by default 256 bytes more than `data`;
   * a longer one is ENOSPC. XDP with `repeat` above 1 waits some 15 ms for the kernel to prepare.
   */
  testRun(programFd: number, options: { data: Uint8Array; repeat?: number; ctx?: Uint8Array; flags?: number; room?: number }): TestRun;
  /** Calls back for each record on the event loop; the returned function stops it. Does not keep the process alive. */
  ringBuffer(mapFd: number, onRecord: (record: Uint8Array) => void): () => void;

  /**
   * Runs an iterator over a map's elements ("iter/bpf_map_elem", "iter/bpf_sk_storage_map") to its end, on a thread.
   * @returns all that it wrote.
   */
  iterate(programFd: number, mapFd: number): Promise<Uint8Array>;
  /**
   * Ends UDP sockets (SOCK_DESTROY), on a thread: the next call on each fails with ECONNABORTED. One that is gone, or has
   * another peer by now, is left.
   * @param ids 52 bytes for each: AF_INET or AF_INET6 as u32, then struct inet_diag_sockid.
   * @param namespace file of their network namespace, "/run/netns/web", "/proc/7/ns/net"; entering one needs CAP_SYS_ADMIN. Default: the process's own.
   * @returns how many were ended.
   */
  destroyUdp(ids: Uint8Array, namespace?: string): Promise<number>;

  /** Of the calling process's network namespace. */
  interfaces(): Interface[];
  /** Like `ip link delete`. Throws ENODEV when there is no such device. */
  deleteInterface(index: number): void;
  /**
   * Calls back, on the event loop, after devices or addresses of the calling process's network namespace have changed;
   * many changes may be one call. The returned function stops it. Does not keep the process alive.
   */
  watchInterfaces(onChange: () => void): () => void;
  /** All chains of nftables in the calling process's network namespace, those of iptables-nft included. Needs CAP_NET_ADMIN. */
  nftChains(): { readonly family: string; readonly table: string; readonly name: string }[];
  /** SO_NETNS_COOKIE of the calling process. */
  netnsCookie(): bigint;
  /** flock(LOCK_EX | LOCK_NB) on a file or folder; undefined when somebody else holds it. Held until the fd closes. */
  lock(path: string): number | undefined;
  /**
   * Lets go of what malloc has free, and of the resident pages of this process's own files (Node's binary, libraries) that nothing
   * has been written to; the kernel brings back those that are used again. Returns how many bytes of files were resident: those of
   * starting, mostly.
   */
  releaseMemory(): number;
  /** Number of possible CPUs: per-CPU values hold this many. */
  possibleCpus(): number;
}

declare const native: Native;
export default native;
