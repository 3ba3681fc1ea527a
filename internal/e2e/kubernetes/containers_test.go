package kubernetes

import "strings"

// containers: no file system but those of the manifest can be written, and the containers that need no token and no secret have none.
func (l *lab) containers(t *recorder) string {
	pod := l.weftPod(t, 1)
	inside := []string{"k", "-n", "kube-system", "exec", pod, "-c", "weft", "--"}
	_, err := l.run(t.Context(), append(inside, "weft", "capture", "-c", "1", "-w", "/x")...)
	if err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("the root file system of weft can be written: %v", err)
	}
	// The image has no shell. The mounts of the processes are visible on the node.
	for process, hidden := range map[string][]string{
		"weft up --take-over --config /var/lib/weft/kube.yaml": {"kubernetes.io/serviceaccount"},
		"weft-kube run": {"/etc/weft ", "/var/lib/weft "},
	} {
		for _, pid := range strings.Fields(l.onNode(t, 1, "pgrep", "-f", "^"+process)) {
			mounts := l.onNode(t, 1, "cat", "/proc/"+pid+"/mounts")
			for _, path := range hidden {
				if strings.Contains(mounts, path) {
					t.Errorf("%s sees %s:\n%s", process, path, mounts)
				}
			}
			status := l.onNode(t, 1, "cat", "/proc/"+pid+"/status")
			for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
				if !strings.Contains(status, want) {
					t.Errorf("%s has no %q", process, want)
				}
			}
		}
	}
	if log := l.kubectl(t, "-n", "kube-system", "logs", pod, "-c", "weft"); strings.Contains(log, "not permitted") {
		t.Errorf("the daemon lacks a privilege:\n%s", log)
	}
	return "read-only root, no new privileges, seccomp; the daemon has no token, weft-kube neither secret nor key"
}
