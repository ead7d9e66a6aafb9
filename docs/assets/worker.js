// Browsers give pages that are opened as files no workers, which search works in. There a hidden frame takes its place.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = "<script></script>"
      this.ready = new Promise(resolve => this.frame.addEventListener("load", () => {
        const inner = this.frame.contentWindow
        inner.postMessage = data => {
          const event = new MessageEvent("message", { data })
          this.dispatchEvent(event)
          if (this.onmessage) this.onmessage(event)
        }
        const script = inner.document.createElement("script")
        script.src = url
        script.addEventListener("load", () => resolve(inner))
        inner.document.body.append(script)
      }, { once: true }))
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.ready.then(inner => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
