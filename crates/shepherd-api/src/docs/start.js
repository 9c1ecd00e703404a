"use strict";
const api = document.getElementById("api");
SwaggerUIBundle({
  url: new URL(api.dataset.spec, document.baseURI).href,
  domNode: api,
  deepLinking: true,
  validatorUrl: null,
});
