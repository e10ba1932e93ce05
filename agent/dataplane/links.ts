/**
 * Pinned links. A pin's name says all about its place: whose it is, which hook, which mode. A link that
 * is there already is updated in place, so that no packet passes by; attaching anew resets some NICs.
 */
import { unlinkSync } from 'node:fs';
import native from '../../native/index.js';
import type { BpfError, CgroupAttach } from '../../native/index.d.ts';
import { namesIn } from './maps.ts';

export type Direction = 'ingress' | 'egress';

/** The cgroup's id is its inode number: another cgroup is another pin. Dots are not allowed in names here. */
export const cgroupPin = (id: bigint, hook: CgroupAttach): string => `cgroup_${id}_${hook}`;
export const xdpPin = (ifindex: number, mode: 'native' | 'generic'): string => `dev_${ifindex}_xdp_${mode}`;
export const tcxPin = (ifindex: number, direction: Direction): string => `dev_${ifindex}_tcx_${direction}`;

export class Links {
  readonly #folder: string;

  /** @param folder must exist, on a bpffs. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  get pins(): readonly string[] {
    return namesIn(this.#folder);
  }

  /**
   * Makes the pinned link run the program: adopted, updated in place, or created.
   * @param create attaches, and returns the link.
   * @throws BpfError of `create`.
   */
  ensure(pin: string, program: number, create: () => number): void {
    const path = `${this.#folder}/${pin}`;
    const held = native.openPin(path);
    if (held !== undefined) {
      try {
        if (runs(held, program)) return;
      } finally {
        native.close(held);
      }
      unlinkSync(path);
    }
    const link = create();
    try {
      native.pin(link, path);
    } finally {
      native.close(link);
    }
  }

  /** Detaches, also when somebody else holds the link too. */
  remove(pin: string): void {
    const path = `${this.#folder}/${pin}`;
    const held = native.openPin(path);
    if (held === undefined) return;
    try {
      native.linkDetach(held);
    } catch (error) {
      if (!isGone(error)) throw error;
    } finally {
      native.close(held);
    }
    unlinkSync(path);
  }
}

/** BPF_LINK_TYPE_XDP and BPF_LINK_TYPE_TCX. */
const OF_DEVICES = new Set([6, 11]);

/** Makes the link run the program; false when what it was attached to is gone. */
function runs(link: number, program: number): boolean {
  const { programId, ifindex, type } = native.linkInfo(link);
  if (OF_DEVICES.has(type) && ifindex === 0) return false;
  if (programId === native.programInfo(program).id) return true;
  try {
    native.linkUpdate(link, program);
    return true;
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

/** ENOLINK: the device or cgroup of the link does not exist any more. */
function isGone(error: unknown): boolean {
  return (error as BpfError).code === 'ENOLINK';
}
