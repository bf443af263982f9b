import { describeDriverConformance } from '../../packages/host/src/drivers/conformance.ts'
import { describeRootConformance } from '../../packages/host/src/drivers/conformance-roots.ts'
import { containerSetup } from '../kit/container-setup.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** Emulated machines are slow, see tests/compat. */
const timeScale = Number(process.env.MAGS_TIME_SCALE ?? 1)

if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) {
  describeDriverConformance('container', containerSetup({ rootMode: 'swap' }), { timeScale })
  describeRootConformance('container', containerSetup({ rootMode: 'swap' }), { timeScale })
}
