import type { EgressPolicy, RunningSandbox, SandboxSpec } from '@mags/protocol'

/**
 * What a job may reach since it was changed last; before that its row says it.
 *
 *     in force ──set, without a sandbox──► owed ──applyTo, catchUp──► in force
 */
export class JobEgressPolicy {
  readonly #sandbox: () => RunningSandbox | undefined
  /** The last policy it was given since it is here. */
  #policy: EgressPolicy | undefined
  /** That came while there was no sandbox to give it to. */
  #isOwed = false

  /** `sandbox`: the one that the job has now. */
  constructor(sandbox: () => RunningSandbox | undefined) {
    this.#sandbox = sandbox
  }

  /** From now on; without a sandbox, from its start on. Rejects as `RunningSandbox.setEgress`. */
  async set(policy: EgressPolicy): Promise<void> {
    // First where it is in force, so that one that cannot be kept is not remembered.
    await this.#sandbox()?.setEgress(policy)
    this.#policy = policy
    // One that was made meanwhile was made with the policy before.
    if (this.#sandbox() === undefined) this.#isOwed = true
  }

  /** What the first sandbox is made with. */
  applyTo(spec: SandboxSpec): SandboxSpec {
    this.#isOwed = false
    return this.#policy === undefined ? spec : { ...spec, egress: this.#policy }
  }

  /** Gives a sandbox that has just been made the policy that came meanwhile. Rejects as `RunningSandbox.setEgress`. */
  async catchUp(running: RunningSandbox): Promise<void> {
    if (!this.#isOwed || this.#policy === undefined) return
    this.#isOwed = false
    await running.setEgress(this.#policy)
  }
}
