package health

import "slices"

// Codes of all conditions. docs/OPERATIONS.md has a section for each, with the code as its anchor.
const (
	NoSecret                  Code = "no_secret"
	SecretRotationIncomplete  Code = "secret_rotation_incomplete"
	KeyMismatch               Code = "key_mismatch"
	TargetKeyMismatch         Code = "target_key_mismatch"
	TargetClusterMismatch     Code = "target_cluster_mismatch"
	TargetUnreachable         Code = "target_unreachable"
	TargetRefused             Code = "target_refused"
	IdentityExpiresSoon       Code = "identity_expires_soon"
	IdentityExpired           Code = "identity_expired"
	IdentityUnusable          Code = "identity_unusable"
	IdentitiesIncomplete      Code = "identities_incomplete"
	NodeRefused               Code = "node_refused"
	ClusterMismatch           Code = "cluster_mismatch"
	GossipRejected            Code = "gossip_rejected"
	RangeMismatch             Code = "range_mismatch"
	VersionMismatch           Code = "version_mismatch"
	DNSDomainMismatch         Code = "dns_domain_mismatch"
	RangeNotReady             Code = "range_not_ready"
	RangeFull                 Code = "range_full"
	RangeDividedTwice         Code = "range_divided_twice"
	StateWriteFailed          Code = "state_write_failed"
	SpaceReclaimed            Code = "space_reclaimed"
	LeaseLost                 Code = "lease_lost"
	StaleState                Code = "stale_state"
	OwnershipConflict         Code = "ownership_conflict"
	ReclaimUnfinished         Code = "reclaim_unfinished"
	PodsWithoutLease          Code = "pods_without_lease"
	PodAddressesUnknown       Code = "pod_addresses_unknown"
	PodScanFailed             Code = "pod_scan_failed"
	PodAddressNotOwned        Code = "pod_address_not_owned"
	DelegatedAddressInRange   Code = "delegated_address_in_range"
	GatewayAddressNotOwned    Code = "gateway_address_not_owned"
	PodGatewayMissing         Code = "pod_gateway_missing"
	MasqueradeFailed          Code = "masquerade_failed"
	InwardFailed              Code = "inward_failed"
	GuardFailed               Code = "guard_failed"
	HostGuardFailed           Code = "host_guard_failed"
	NodePortsOpen             Code = "node_ports_open"
	PodsUnguarded             Code = "pods_unguarded"
	KernelPathDown            Code = "kernel_path_down"
	KernelPathBlocked         Code = "kernel_path_blocked"
	HandshakeUnanswered       Code = "handshake_unanswered"
	PeerUnreachable           Code = "peer_unreachable"
	PeerRelayed               Code = "peer_relayed"
	DialOutOnly               Code = "dial_out_only"
	CipherMismatch            Code = "cipher_mismatch"
	MTUTooLarge               Code = "mtu_too_large"
	PathMTUSmall              Code = "path_mtu_small"
	PodMTULarge               Code = "pod_mtu_large"
	AddressMissing            Code = "address_missing"
	BridgeBroken              Code = "bridge_broken"
	BridgeRepaired            Code = "bridge_repaired"
	RepairContested           Code = "repair_contested"
	HostSetting               Code = "host_setting"
	PodPortMoved              Code = "pod_port_moved"
	OffloadMissing            Code = "offload_missing"
	BusyPollUnavailable       Code = "busy_poll_unavailable"
	DuplicateAddress          Code = "duplicate_address"
	DuplicateMAC              Code = "duplicate_mac"
	UnauthenticatedHandshakes Code = "unauthenticated_handshakes"
	PodTrafficFiltered        Code = "pod_traffic_filtered"
	OutsideTrafficFiltered    Code = "outside_traffic_filtered"
	ClientTrafficFiltered     Code = "client_traffic_filtered"
	HostTrafficFiltered       Code = "host_traffic_filtered"
	NodePortFiltered          Code = "node_port_filtered"
	RangeRoutedElsewhere      Code = "range_routed_elsewhere"
	RangeHidesHosts           Code = "range_hides_hosts"
	HostPortsFlushed          Code = "host_ports_flushed"
	NeighborTableFull         Code = "neighbor_table_full"
	PodBroadcasts             Code = "pod_broadcasts"
	ForeignSource             Code = "foreign_source"
	DNSNotListening           Code = "dns_not_listening"
	PeerDead                  Code = "peer_dead"
	OwnerUnseen               Code = "owner_unseen"
	ClockSkew                 Code = "clock_skew"
	PeerClockSkew             Code = "peer_clock_skew"
)

// definitions describes the codes; their order is the one of the metric and of nothing else.
var definitions = []Definition{
	{NoSecret, Warning, "Traffic is not encrypted"},
	{SecretRotationIncomplete, Info, "Some nodes do not accept the first secret yet"},
	{KeyMismatch, Warning, "A node with another secret tries to join"},
	{TargetKeyMismatch, Error, "A target has no secret in common with this node"},
	{TargetClusterMismatch, Error, "A target belongs to another cluster"},
	{TargetUnreachable, Warning, "A target does not answer"},
	{TargetRefused, Error, "A target and this node do not admit each other"},
	{IdentityExpiresSoon, Warning, "The certificate of this node expires soon"},
	{IdentityExpired, Error, "The certificate of this node has expired"},
	{IdentityUnusable, Error, "The certificate of this node is not accepted"},
	{IdentitiesIncomplete, Info, "Some nodes have no certificate"},
	{NodeRefused, Warning, "A node was refused because of its identity"},
	{ClusterMismatch, Error, "A node of another cluster was found"},
	{GossipRejected, Warning, "Gossip from another node was ignored"},
	{RangeMismatch, Error, "A node has another address range"},
	{VersionMismatch, Info, "Nodes run different versions of weft"},
	{DNSDomainMismatch, Warning, "A node has another DNS domain"},
	{RangeNotReady, Warning, "No addresses can be allocated yet"},
	{RangeFull, Warning, "An address range is nearly full"},
	{RangeDividedTwice, Error, "An address range was divided twice"},
	{StateWriteFailed, Error, "State cannot be written to disk"},
	{SpaceReclaimed, Info, "The address space of this node was reclaimed"},
	{LeaseLost, Error, "A lease was lost with its address range"},
	{StaleState, Error, "A node ran with an old copy of its state"},
	{OwnershipConflict, Error, "Two nodes claimed the same addresses"},
	{ReclaimUnfinished, Warning, "A reclaim was started and not finished"},
	{PodsWithoutLease, Warning, "Pods run without a lease"},
	{PodAddressesUnknown, Error, "The addresses of pods without a lease cannot be read"},
	{PodScanFailed, Error, "Pods without a lease cannot be listed"},
	{PodAddressNotOwned, Error, "A pod uses an address that another node allocates"},
	{DelegatedAddressInRange, Error, "Another IPAM plugin assigned an address inside the range"},
	{GatewayAddressNotOwned, Error, "The bridge has an address that another node allocates"},
	{PodGatewayMissing, Error, "Pods have lost their gateway"},
	{MasqueradeFailed, Error, "Pods cannot reach addresses outside the overlay"},
	{InwardFailed, Error, "Answers to clients outside the overlay do not arrive"},
	{GuardFailed, Error, "What pods send is not checked"},
	{HostGuardFailed, Warning, "The host is not protected from frames of pods"},
	{NodePortsOpen, Warning, "Pods may reach the ports of nodes"},
	{PodsUnguarded, Warning, "Pods run without a guard"},
	{KernelPathDown, Warning, "The kernel path is not available"},
	{KernelPathBlocked, Info, "The kernel path to some peers is not confirmed"},
	{HandshakeUnanswered, Error, "A peer does not answer handshakes"},
	{PeerUnreachable, Error, "A live peer cannot be reached"},
	{PeerRelayed, Warning, "A peer is reached through a relay"},
	{DialOutOnly, Info, "This node accepts no connections from outside"},
	{CipherMismatch, Error, "This node and a peer require different ciphers"},
	{MTUTooLarge, Error, "The MTU of the pods does not fit the underlay"},
	{PathMTUSmall, Warning, "The path to a peer is narrower than the MTU of the pods"},
	{PodMTULarge, Warning, "Pods have a larger MTU than the overlay"},
	{AddressMissing, Error, "The address of this node is missing on its host"},
	{BridgeBroken, Error, "The bridge or a port cannot be restored"},
	{BridgeRepaired, Warning, "Another program changed what weft set on this host"},
	{RepairContested, Error, "Another program undoes each repair"},
	{HostSetting, Warning, "A setting of the kernel is wrong"},
	{PodPortMoved, Error, "The port of a pod is in another bridge"},
	{OffloadMissing, Info, "The kernel lacks an offload"},
	{BusyPollUnavailable, Warning, "Busy polling has no effect"},
	{DuplicateAddress, Error, "Two interfaces use the same IP address"},
	{DuplicateMAC, Error, "Two interfaces use the same MAC address"},
	{UnauthenticatedHandshakes, Warning, "Handshakes arrive without a common secret"},
	{PodTrafficFiltered, Error, "A packet filter of the host drops frames between pods"},
	{ClientTrafficFiltered, Warning, "A packet filter keeps clients outside from pods"},
	{OutsideTrafficFiltered, Warning, "A packet filter keeps pods inside the overlay"},
	{HostTrafficFiltered, Warning, "A packet filter keeps this host from its pods"},
	{NodePortFiltered, Warning, "A packet filter drops packets of other nodes"},
	{RangeRoutedElsewhere, Error, "A route of the host leads away from the pods"},
	{RangeHidesHosts, Error, "The address range hides hosts of the underlay"},
	{HostPortsFlushed, Warning, "Another program removed ports of containers"},
	{NeighborTableFull, Error, "The kernel has no room for neighbors"},
	{PodBroadcasts, Warning, "Pods send too many broadcasts"},
	{ForeignSource, Warning, "A peer sends with addresses of another node"},
	{DNSNotListening, Warning, "The name server does not listen"},
	{PeerDead, Warning, "A node is dead"},
	{OwnerUnseen, Warning, "An owner of addresses was not seen since this node started"},
	{ClockSkew, Warning, "The clock of this node is wrong"},
	{PeerClockSkew, Warning, "The clock of a peer is wrong"},
}

// Definitions returns the table of all conditions. The slice is the caller's.
func Definitions() []Definition { return slices.Clone(definitions) }

// DefinitionOf returns the definition of a code. A code that is not in the table is an Error without a title: a source reports
// it by mistake, and nothing that it says is lost.
func DefinitionOf(code Code) Definition {
	for _, d := range definitions {
		if d.Code == code {
			return d
		}
	}
	return Definition{Code: code, Severity: Error}
}
