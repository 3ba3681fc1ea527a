package lab

import (
	"context"
	"errors"
	"fmt"
)

// farSwitch is the bridge of the first host while there is a line between it and the others.
const farSwitch = "far"

// InsertLine moves the first host to a switch of its own. near and far are two interfaces in the namespace of the switch that pass
// packets to each other; they connect the two switches.
func (l *Lab) InsertLine(ctx context.Context, near, far string) error {
	port := l.Ends[0].Port()
	return l.onSwitch(ctx,
		[]string{"link", "add", farSwitch, "type", "bridge"},
		[]string{"link", "set", farSwitch, "up"},
		[]string{"link", "set", near, "master", l.Bridge()},
		[]string{"link", "set", far, "master", farSwitch},
		[]string{"link", "set", port, "master", farSwitch},
	)
}

// RemoveLine moves the first host back.
func (l *Lab) RemoveLine(ctx context.Context) error {
	return errors.Join(
		l.onSwitch(ctx, []string{"link", "set", l.Ends[0].Port(), "master", l.Bridge()}),
		l.onSwitch(ctx, []string{"link", "del", farSwitch}),
	)
}

// onSwitch runs ip commands in the namespace of the switch.
func (l *Lab) onSwitch(ctx context.Context, commands ...[]string) error {
	for _, c := range commands {
		if _, err := l.Switch().Run(ctx, append([]string{"ip"}, c...)...); err != nil {
			return fmt.Errorf("lab: line: %w", err)
		}
	}
	return nil
}
