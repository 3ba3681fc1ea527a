package datapath

import (
	"fmt"
	"strings"
	"time"

	"weft/internal/health"
	"weft/internal/plural"
	"weft/internal/podlink"
)

// repairedFor is how long a repair remains a condition.
const repairedFor = 10 * time.Minute

// repairFindings reports what other programs change on the host: what was restored, what cannot be, and what is undone each time.
func (d *Datapath) repairFindings(now time.Time) (findings []health.Finding) {
	s := d.repairs.snapshot()
	remedy := fmt.Sprintf("Find the program that changes it, such as NetworkManager or systemd-networkd, and exclude %s, %s and %s* there.",
		d.settings.Bridge, d.settings.Tap, podlink.HostPrefix)
	if s.total() > 0 && now.Sub(s.last) <= repairedFor {
		findings = append(findings, health.Finding{
			Code: health.BridgeRepaired,
			Text: fmt.Sprintf("Another program changed what weft set on this host, %s since the start, last at %s. weft restored it: %s.",
				plural.Count(s.total(), "time"), s.last.Format(time.DateTime), strings.Join(s.recent, "; ")),
			Remedy: remedy,
		})
	}
	for _, f := range s.failed {
		finding := health.Finding{
			Code: health.BridgeBroken, Key: f.what, Text: fmt.Sprintf("On this host %s, and weft cannot restore it: %v.", f.what, f.err),
			Remedy: remedy,
		}
		if f.setting {
			finding.Code = health.HostSetting
			finding.Remedy = "Set it with sysctl, where /proc/sys is read-only before the start, and remove what sets another value."
		}
		findings = append(findings, finding)
	}
	for _, c := range s.contested {
		findings = append(findings, health.Finding{
			Code: health.RepairContested, Key: string(c.Kind) + " " + c.Object,
			Text: fmt.Sprintf("Another program undoes each repair of %s (%s): weft restored it %d times in a row, and now waits %v between two "+
				"repairs.", c.Object, c.Kind, c.Repairs, c.Pause),
			Remedy: remedy,
		})
	}
	for _, l := range s.moved {
		findings = append(findings, health.Finding{
			Code: health.PodPortMoved, Key: l.Name,
			Text: fmt.Sprintf("Another program made %s, the host end of a pod's interface, a port of %s: the pod does not reach the overlay.",
				l.Name, l.Master),
			Remedy: fmt.Sprintf("Run \"ip link set %s master %s\", or detach the pod.", l.Name, d.settings.Bridge),
		})
	}
	return findings
}
