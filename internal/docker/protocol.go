package docker

// The requests and answers of Docker's plugin protocol, as JSON: network drivers (moby, libnetwork/docs/remote.md and
// libnetwork/drivers/remote/api) and IPAM drivers (libnetwork/docs/ipam.md and libnetwork/ipams/remote/api). An answer with an Err is a
// failure; Docker shows its text.

// Keys in the options of requests (moby, libnetwork/netlabel).
const (
	optionGeneric  = "com.docker.network.generic" // the options of the user, "docker network create -o"
	optionInternal = "com.docker.network.internal"
	optionMTU      = "com.docker.network.driver.mtu"
	optionMAC      = "com.docker.network.endpoint.macaddress"
	optionType     = "RequestAddressType"
	typeGateway    = "com.docker.network.gateway"
)

// Options of a network, beside optionMTU.
const (
	optionGuard     = "weft.guard"
	optionMulticast = "weft.multicast"
)

// implements is the answer to Plugin.Activate.
type implements struct{ Implements []string }

// none is a request or an answer without a content.
type none struct{}

type networkCapabilities struct{ Scope, ConnectivityScope string }

type ipamData struct {
	AddressSpace string
	Pool         string // CIDR
	Gateway      string // CIDR
}

type createNetworkRequest struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []ipamData
	IPv6Data  []ipamData
}

type networkRequest struct{ NetworkID string }

type endpointInterface struct {
	Address     string `json:",omitempty"` // CIDR
	AddressIPv6 string `json:",omitempty"` // CIDR
	MacAddress  string `json:",omitempty"`
}

type createEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *endpointInterface
}

// createEndpointResponse has what the request left open; Docker refuses anything else.
type createEndpointResponse struct{ Interface *endpointInterface }

type endpointRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string // of Join: path of the network namespace
}

type operInfoResponse struct{ Value map[string]string }

type interfaceName struct{ SrcName, DstPrefix string }

// onLink is the RouteType of a route without a next hop.
const onLink = 1

type staticRoute struct {
	Destination string
	RouteType   int
	NextHop     string `json:",omitempty"`
}

// joinResponse has no gateway, so that Docker connects the container to docker_gwbridge unless the network is internal.
type joinResponse struct {
	InterfaceName interfaceName
	StaticRoutes  []staticRoute `json:",omitempty"`
}

type ipamCapabilities struct{ RequiresMACAddress bool }

type addressSpaces struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }

type requestPoolRequest struct {
	AddressSpace string
	Pool         string // CIDR; empty: the driver chooses
	SubPool      string // CIDR within Pool from which addresses are allocated; empty: Pool
	Options      map[string]string
	V6           bool
}

type requestPoolResponse struct {
	PoolID string
	Pool   string
	Data   map[string]string `json:",omitempty"`
}

type releasePoolRequest struct{ PoolID string }

type addressRequest struct {
	PoolID  string
	Address string // empty: any
	Options map[string]string
}

type addressResponse struct {
	Address string // CIDR
}
