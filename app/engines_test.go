package app

import "testing"

// needsEngines skips what the build for one machine alone does not have.
func needsEngines(t *testing.T) {
	t.Helper()
	if !fleets {
		t.Skip("this build has no engines")
	}
}

// The build without engines refuses what needs one, by name, and says which build has it.
func TestAFileForAFleetInABuildWithout(t *testing.T) {
	t.Parallel()
	if fleets {
		t.Skip("this build has engines")
	}
	refused(t, base+"deployment_secret: {env: D}\nrevocation: {bus: {redis: {address: 'a:1'}}}\n", "revocation.bus", notInThisBuild)
	refused(t, base+"deployment_secret: {env: D}\ncache: {l2: {redis: {address: 'a:1'}}}\n", "cache.l2", notInThisBuild)
}
