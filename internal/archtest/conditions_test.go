package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"weft/internal/health"
)

// conditionTests says for each condition which test brings it about and sees it end, on real hosts where that is possible. "package:
// Test"; without a package the test is in internal/e2e.
var conditionTests = map[health.Code]string{
	health.NoSecret:                  "TestHour",
	health.SecretRotationIncomplete:  "TestRemedyOfAnUnfinishedRotation",
	health.KeyMismatch:               "TestRemedyOfAnotherSecret",
	health.TargetKeyMismatch:         "TestRemedyOfAnotherSecret",
	health.TargetClusterMismatch:     "TestClustersStaySeparate",
	health.TargetUnreachable:         "TestRemedyOfAnUnreachableTarget",
	health.TargetRefused:             "internal/node:TestRefusedFindings",
	health.IdentityExpiresSoon:       "internal/node:TestOwnIdentityFindings",
	health.IdentityExpired:           "internal/node:TestOwnIdentityFindings",
	health.IdentityUnusable:          "internal/node:TestOwnIdentityFindings",
	health.IdentitiesIncomplete:      "internal/node:TestIncompleteFindings",
	health.NodeRefused:               "internal/node:TestRefusedFindings",
	health.ClusterMismatch:           "TestClustersStaySeparate",
	health.GossipRejected:            "TestRemedyOfAnotherRange",
	health.RangeMismatch:             "TestRemedyOfAnotherRange",
	health.VersionMismatch:           "TestRemedyOfAnotherVersion",
	health.DNSDomainMismatch:         "TestRemedyOfAnotherDomain",
	health.RangeNotReady:             "TestRemedyOfAnUndividedRange",
	health.RangeFull:                 "internal/node:TestSpaceFindings",
	health.RangeDividedTwice:         "ipam:TestEventsEnd",
	health.StateWriteFailed:          "TestRemedyOfAFullDisk",
	health.SpaceReclaimed:            "ipam:TestEventsEnd",
	health.LeaseLost:                 "TestRemediesOfAReclaimedNode",
	health.StaleState:                "ipam:TestEventsEnd",
	health.OwnershipConflict:         "ipam:TestEventsEnd",
	health.ReclaimUnfinished:         "ipam:TestReclaimNeedsAllOwners",
	health.PodsWithoutLease:          "TestRemedyOfALostDatabase",
	health.PodAddressesUnknown:       "TestAddressesOfAnotherManager",
	health.PodScanFailed:             "internal/leases:TestFailedScanIsReported",
	health.PodAddressNotOwned:        "TestRemediesOfAReclaimedNode",
	health.DelegatedAddressInRange:   "internal/leases:TestDelegatedAddressFindings",
	health.GatewayAddressNotOwned:    "TestRemediesOfAReclaimedNode",
	health.PodGatewayMissing:         "TestRemedyOfAHiddenGateway",
	health.MasqueradeFailed:          "internal/datapath:TestRuleFindings",
	health.InwardFailed:              "internal/inward:TestNoNFT",
	health.GuardFailed:               "internal/datapath:TestGuardFindings",
	health.HostGuardFailed:           "internal/datapath:TestGuardFindings",
	health.NodePortsOpen:             "internal/datapath:TestNodePortFindings",
	health.PodsUnguarded:             "internal/leases:TestUnguarded",
	health.KernelPathDown:            "internal/datapath:TestKernelFindings",
	health.KernelPathBlocked:         "internal/datapath:TestKernelFindings",
	health.HandshakeUnanswered:       "internal/datapath:TestHandshakeFindings",
	health.PeerUnreachable:           "internal/datapath:TestMemberFindings",
	health.PeerRelayed:               "internal/datapath:TestMemberFindings",
	health.DialOutOnly:               "internal/datapath:TestMemberFindings",
	health.CipherMismatch:            "internal/datapath:TestMemberFindings",
	health.MTUTooLarge:               "internal/node:TestMTUFindings",
	health.PathMTUSmall:              "TestWarningsOfTheHost",
	health.PodMTULarge:               "TestPodsOutOfReach",
	health.AddressMissing:            "TestRenumber",
	health.BridgeBroken:              "internal/repairs:TestFindings",
	health.BridgeRepaired:            "internal/repairs:TestFindings",
	health.RepairContested:           "internal/repairs:TestFindings",
	health.HostSetting:               "internal/repairs:TestFindings",
	health.PodPortMoved:              "internal/repairs:TestFindings",
	health.OffloadMissing:            "internal/datapath:TestOffloadFindings",
	health.BusyPollUnavailable:       "internal/datapath:TestBusyPollFindings",
	health.DuplicateAddress:          "internal/datapath:TestDuplicateFindings",
	health.DuplicateMAC:              "internal/datapath:TestDuplicateFindings",
	health.UnauthenticatedHandshakes: "internal/datapath:TestHandshakeFindings",
	health.PodTrafficFiltered:        "TestFiltersThatDropPods",
	health.OutsideTrafficFiltered:    "TestFiltersOfOtherTraffic",
	health.ClientTrafficFiltered:     "TestInward",
	health.HostTrafficFiltered:       "TestFiltersOfOtherTraffic",
	health.NodePortFiltered:          "TestFiltersOfOtherTraffic",
	health.RangeRoutedElsewhere:      "TestRoutesOfTheHost",
	health.RangeHidesHosts:           "internal/hostcheck:TestFindings",
	health.HostPortsFlushed:          "TestFlushedHostPorts",
	health.NeighborTableFull:         "internal/hostcheck:TestNeighbors",
	health.PodBroadcasts:             "TestBroadcastLimit",
	health.ForeignSource:             "TestSourceCheck",
	health.DNSNotListening:           "TestRemedyOfABusyPort53",
	health.PeerDead:                  "TestConditions",
	health.OwnerUnseen:               "TestRemedyOfAnUnseenOwner",
	health.ClockSkew:                 "internal/node:TestClockFindings",
	health.PeerClockSkew:             "internal/node:TestClockFindings",
}

// TestConditionsHaveTests checks that each condition has a test that sees it come and go.
func TestConditionsHaveTests(t *testing.T) {
	name := regexp.MustCompile(`^(?:(.+):)?(Test\w+)$`)
	for _, d := range health.Definitions() {
		m := name.FindStringSubmatch(conditionTests[d.Code])
		if m == nil {
			t.Errorf("%s has no test", d.Code)
			continue
		}
		dir := m[1]
		if dir == "" {
			dir = "internal/e2e"
		}
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		declaration, found := regexp.MustCompile(`(?m)^func `+m[2]+`\(`), false
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || declaration.Match(text)
		}
		if !found {
			t.Errorf("%s: there is no test %s in %s", d.Code, m[2], dir)
		}
	}
}
