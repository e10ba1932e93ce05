/** How much longer than usual to wait for what must come: in a VM without KVM (tools/vm) everything takes its time. */
export const PATIENCE = process.env['MAGLANE_VM'] === undefined ? 1 : 10;
