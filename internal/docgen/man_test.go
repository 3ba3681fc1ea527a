package docgen

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func TestMan(t *testing.T) {
	noop := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "net", Short: "A network"}
	root.PersistentFlags().String("socket", "", "`path` of the socket")
	up := &cobra.Command{
		Use: "up [PEER...]", Short: "Run a node", Long: "Run it.\n.dot and 'quote\n\n\tnet up -x\\y\n\nEnd.", Example: "  net up a", Run: noop,
	}
	up.Flags().IntP("count", "c", 3, "this number of `times`")
	up.Flags().StringSlice("range", nil, "which")
	up.Flags().String("name", "buildhost", "the name")
	up.Flags().Bool("help", false, "help for up")
	root.AddCommand(up, &cobra.Command{Use: "hidden", Hidden: true, Run: noop})
	pages := Man(root, ManOptions{
		Date: time.Unix(0, 0).UTC(), Source: "net", Defaults: map[string]string{"name": "the host's name"},
		Sections: []ManSection{{"FILES", []ManPart{{Term: "/etc/net", Text: "Settings."}, {Text: "More:"}, {Code: "net up"}}}},
	})
	want := map[string]string{
		"net.8": `.TH "NET" 8 "1970\-01\-01" "net"
.nh
.ad l
.SH NAME
net \- a network
.SH SYNOPSIS
\fBnet\fP \fIcommand\fP [\fIflags\fP]
.SH DESCRIPTION
A network.
.SH OPTIONS
.TP
\fB\-\-socket\fP \fIpath\fP
path of the socket
.SH COMMANDS
.TP
\fBnet\-up\fP(8)
Run a node
.SH "FILES"
.TP
\fB/etc/net\fP
Settings.
.PP
More:
.PP
.RS 4
.nf
net up
.fi
.RE
`,
		"net-up.8": `.TH "NET\-UP" 8 "1970\-01\-01" "net"
.nh
.ad l
.SH NAME
net\-up \- run a node
.SH SYNOPSIS
\fBnet up\fP [PEER...] [flags]
.SH DESCRIPTION
Run it.
\&.dot and 'quote
.PP
.RS 4
.nf
net up \-x\ey
.fi
.RE
.PP
End.
.SH OPTIONS
.TP
\fB\-c\fP, \fB\-\-count\fP \fItimes\fP
this number of times (default 3)
.TP
\fB\-\-name\fP \fIstring\fP
the name (default the host's name)
.TP
\fB\-\-range\fP \fIstrings\fP
which
.SH OPTIONS OF EVERY COMMAND
.TP
\fB\-\-socket\fP \fIpath\fP
path of the socket
.SH EXAMPLES
.PP
.RS 4
.nf
net up a
.fi
.RE
.SH "SEE ALSO"
\fBnet\fP(8)
`,
	}
	if diff := cmp.Diff(want, pages); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
